"""The steps of a run: what each says, and what it need not do again because nothing that it depends on has changed."""

import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import fairway
from fairway import clock, fingerprint
from fairway.store import schema
from fairway.store.workspace import Workspace

KEPT = 24  # folders of step results; older ones are computed again when they are asked for


@dataclass(frozen=True)
class StepLine:
    """One line of progress. cached: its result of an earlier run was taken. id: what it made, "data-16320c".

    notes: sentences about what was noticed on the way and stopped nothing.
    """

    name: str
    text: str
    seconds: float
    cached: bool = False
    id: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


Say = Callable[[StepLine], None]


class Steps:
    """The lines of one run, and the workspace's results of earlier ones.

    A result is found by the fingerprint of everything it was made from; what is too large for the store lies in
    `.fairway/cache/steps/`, which may be deleted at any time.
    """

    def __init__(self, workspace: Workspace, say: Say) -> None:
        self.workspace, self._say = workspace, say
        self.lines: list[StepLine] = []
        self.keys: dict[str, str] = {}

    def say(
        self, name: str, text: str, seconds: float, *, cached: bool = False, id: str = "", notes: Sequence[str] = ()
    ) -> None:
        line = StepLine(name, text, round(seconds, 3), cached, id, tuple(notes))
        self.lines.append(line)
        self._say(line)

    def key(self, name: str, **parts: Any) -> str:
        """The fingerprint of a step: of its inputs, and of what made them."""
        found = fingerprint.of_value({"step": name, "fairway": fairway.__version__, **parts})
        self.keys[name] = found
        return found

    def result(self, key: str) -> dict[str, Any] | None:
        """The stored result of an earlier run."""
        table, store = schema.step, self.workspace.store
        with store.read() as tx:
            found: dict[str, Any] | None = tx.scalar(
                sa.select(table.c.result).where(table.c.workspace == store.workspace, table.c.key == key)
            )
        return found

    def keep(self, name: str, key: str, result: dict[str, Any]) -> None:
        store = self.workspace.store
        row = {"workspace": store.workspace, "key": key, "name": name, "result": result, "created_at": clock.now()}
        with store.write() as tx:
            store.insert_new(tx, schema.step, row)

    def folder(self, key: str) -> Path:
        """Where the files of a step's result are, when it has any."""
        return self.workspace.dir("cache") / "steps" / key

    def new_folder(self) -> Path:
        """An empty folder to work in, beside those that are finished."""
        path = self.folder(f".{uuid.uuid4().hex}")
        path.mkdir(parents=True)
        return path

    def finish_folder(self, made: Path, key: str) -> Path:
        """Give a finished folder its name. When another run was first, its folder is as good."""
        target = self.folder(key)
        if target.exists() and {p.name for p in made.iterdir()} - {p.name for p in target.iterdir()}:
            shutil.rmtree(target, ignore_errors=True)  # a person deleted some of its files
        try:
            made.rename(target)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
        self._forget_old()
        return target

    def _forget_old(self) -> None:
        folders = sorted(self.folder("x").parent.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime_ns)
        for old in folders[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
