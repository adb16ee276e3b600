"""Real packages, built once, and a gateway over them in this process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))

import small_model

from fairway.process.embedded import EmbeddedServing
from fairway.store.workspace import Workspace


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """1 and 2 answer differently; 3 fails on rows of size 13."""
    root = tmp_path_factory.mktemp("packages")
    breaks = 'assert not (data["size"] == 13.0).any(), "thirteen"'
    return {
        1: small_model.make_package(root / "v1"),
        2: small_model.make_package(root / "v2", leaf=3),
        3: small_model.make_package(root / "v3", before=breaks),
    }


@pytest.fixture
def serving(tmp_path: Path, packages: dict[int, Path]) -> Iterator[EmbeddedServing]:
    workspace = Workspace.create(tmp_path / "ws")
    for version, folder in packages.items():
        small_model.register(workspace, folder, version)
    embedded = EmbeddedServing(
        workspace, observers=[], tick=lambda workspace, now: False, run_job=lambda workspace, claim: None
    )
    yield embedded
    embedded.close()
    workspace.store.close()
