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
    """arguments of `fairway`, and prepare its workspace: made anew for each point. holds: trouble at the end, or ""."""

    arguments: Callable[[], tuple[str, ...]]
    prepare: Callable[[], AbstractContextManager[Path]]
    holds: Callable[[Path], str]


def commands(folder: Path, new_database: Callable[[], str]) -> dict[str, Command]:
    """Every command by name; `folder` keeps the workspaces that they start from.

    new_database: the address of a fresh, empty one, for `move`.
    """
    one, two = _one_version(folder / "one"), _two_versions(folder / "two")
    place = folder / "at"
    return {
        "train": Command(lambda: ("train",), lambda: _copy(one, place, changed=True), _has_versions(2)),
        "deploy": Command(lambda: ("deploy",), lambda: _served(one, place), _champion_is(1)),
        "rollback": Command(lambda: ("rollback", "--why", "slow"), lambda: _served(two, place), _champion_is(1)),
        "gc": Command(
            lambda: ("admin", "gc", "--yes", *OLD), lambda: _copy(_with_waste(two, folder), place), _is_clean
        ),
        "move": Command(lambda: ("admin", "move", "--to", new_database()), lambda: _copy(two, place), _has_moved),
    }


OLD = ("--grace", "0s", "--unused", "0s")


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


def _with_waste(start: Path, folder: Path) -> Path:
    """With a dataset, steps and blobs that no version needs: of a check, and of a run that was refused."""
    root = folder / "waste"
    if not root.exists():
        shutil.copytree(start, root)
        table = root / "data.csv"
        table.write_text("\n".join(table.read_text().splitlines()[:1000]) + "\n")
        _well(root, "check", may_be=(0, 1, 3))
        workspace = Workspace.find(root)
        workspace.blobs.put(b"nobody names this")
        workspace.store.close()
    return root


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
            row = tx.execute(sa.select(schema.endpoint).where(schema.endpoint.c.endpoint == "churn")).one()
        store.close()
        return "" if (row.champion, row.shares) == (version, {str(version): 1.0}) else f"the endpoint is {row}"

    return holds


def _is_clean(root: Path) -> str:
    left = fairway(root, "admin", "gc", *OLD)
    return "" if "nothing to delete" in left.said else f"left to delete: {left.said}"


def _has_moved(root: Path) -> str:
    write = fairway(root, "admin", "token", "create", "kim", "--role", "viewer")
    return "" if write.code == 2 and "moved" in write.said else f"the old place can be written: {write.said}"
