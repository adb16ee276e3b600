"""The whole suite of stores on SQLite, as it is embedded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.store.base import Store
from fairway.testing import StoreSuite


class TestSqlite(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
            yield store
