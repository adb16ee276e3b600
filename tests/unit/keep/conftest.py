"""A stopped clock, and a workspace to fill."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from keep_world import NOW, Kept

from fairway import clock
from fairway.store.workspace import Workspace


@pytest.fixture
def still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """A clock that stands at NOW; call it to move it."""
    path = tmp_path / "clock"
    made = clock.VirtualClock(path, NOW)
    monkeypatch.setenv(clock.VARIABLE, str(path))
    return made.move


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(Workspace.create(tmp_path / "ws"))
    yield made
    made.workspace.store.close()
