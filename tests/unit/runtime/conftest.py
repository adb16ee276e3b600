from pathlib import Path

import pytest
from tiny_package import make_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_package(tmp_path)
