"""The commands that are swept with a faulty disk, each with the workspace that it starts from."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import train_project
from commands import PATIENT, serving
from sweep import fairway

from fairway.store import schema
from fairway.store.workspace import Workspace


@dataclass(frozen=True)
class Command:
    """arguments of `fairway`; prepare: its workspace, made anew for each point; holds: trouble at the end, or ""."""

    arguments: tuple[str, ...]
    prepare: Callable[[], AbstractContextManager[Path]]
    holds: Callable[[Path], str]

    @property
    def name(self) -> str:
        return next(a for a in reversed(self.arguments) if not a.startswith("-") and "/" not in a and "@" not in a)


def commands(folder: Path) -> dict[str, Command]:
    """Every command by name; `folder` keeps the workspaces that they start from."""
    one, two = _one_version(folder / "one"), _two_versions(folder / "two")
    place = folder / "at"
    return {
        "train": Command(("train",), lambda: _copy(one, place, changed=True), _has_versions(2)),
        "deploy": Command(("deploy",), lambda: _served(one, place), _champion_is(1)),
        "rollback": Command(("rollback", "--why", "slow"), lambda: _served(two, place), _champion_is(1)),
    }


def _one_version(root: Path) -> Path:
    train_project.write_project(root, settings=train_project.SETTINGS + PATIENT)
    _well(root, "train")
    return root


def _two_versions(root: Path) -> Path:
    """churn@2 is the champion, churn@1 was it before."""
    _one_version(root)
    with serving(root):
        _well(root, "deploy")
        _change_model(root)
        _well(root, "train")
        _well(root, "deploy", "--finish", "--why", "for the test", may_be=(0, 3))
    return root


def _well(root: Path, *arguments: str, may_be: tuple[int, ...] = (0,)) -> None:
    done = fairway(root, *arguments)
    assert done.code in may_be, done.said


def _change_model(root: Path) -> None:
    path = root / "model.py"
    path.write_text(path.read_text() + "\nSECOND = 2\n")


@contextlib.contextmanager
def _copy(start: Path, place: Path, *, changed: bool = False) -> Iterator[Path]:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(start, place)
    if changed:
        _change_model(place)
    yield place


@contextlib.contextmanager
def _served(start: Path, place: Path) -> Iterator[Path]:
    with _copy(start, place) as root, serving(root):
        yield root


def _has_versions(n: int) -> Callable[[Path], str]:
    def holds(root: Path) -> str:
        store = Workspace.find(root).store
        with store.read() as tx:
            found = list(tx.scalars(sa.select(schema.version.c.version).order_by(schema.version.c.version)))
        store.close()
        return "" if found == list(range(1, n + 1)) else f"versions are {found}"

    return holds


def _champion_is(version: int) -> Callable[[Path], str]:
    def holds(root: Path) -> str:
        store = Workspace.find(root).store
        with store.read() as tx:
            row = tx.execute(schema.endpoint.select()).one()
        store.close()
        return "" if (row.champion, row.shares) == (version, {str(version): 1.0}) else f"the endpoint is {row}"

    return holds
