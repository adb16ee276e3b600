"""A run's own record: its row, its folder, its log; and what a run came to."""

import contextlib
import fcntl
import os
import secrets
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import fairway
from fairway import clock
from fairway.checks.result import CheckResult
from fairway.data.project import Project
from fairway.errors import FairwayError, ModelCodeError
from fairway.monitor.resolved import as_dict
from fairway.path import steps
from fairway.registry.versions import Verdict
from fairway.store import schema

FORMAT = 1
LOCK = "lock"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to. new: False when nothing had changed, and `version` is the one that was there already.

    verdict: the gate's: pass, fail or ask. metrics: `Evaluation.as_dict()`; None when outputs could not be evaluated.
    """

    run: str
    model: str
    version: int | None
    new: bool
    verdict: Verdict
    metrics: dict[str, Any] | None
    checks: tuple[CheckResult, ...]
    report: Path
    dataset: str
    artifact: str
    runtime: dict[str, Any]
    ms_per_row: dict[str, float]
    steps: tuple[steps.StepLine, ...]
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, for --json."""
        plain = {name: value for name, value in vars(self).items() if name not in ("checks", "steps", "report")}
        return plain | {
            "checks": [check.as_dict() for check in self.checks],
            "steps": [line.as_dict() for line in self.steps],
            "report": str(self.report),
        }

    def _repr_html_(self) -> str:
        """The report, in the cell of a notebook."""
        import html

        page = html.escape(self.report.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:1px solid #ccc"></iframe>'


class Record:
    """The row and the folder of one run. Made when it begins; ends done or failed, once."""

    def __init__(self, project: Project, *, cause: str, lines: steps.Steps) -> None:
        self.workspace, self.store, self._lines = project.workspace, project.workspace.store, lines
        self.started, self._began, self.run = clock.now(), clock.elapsed(), ""
        values = {
            "model": project.settings.name, "status": "running", "cause": cause, "started_at": self.started,
            "settings": as_dict(project.settings), "steps": [], "fairway": fairway.__version__, "format": FORMAT,
        }  # fmt: skip
        for size in (2, 2, 2, 3, 4, 8):
            self.run = f"run-{secrets.token_hex(size)}"
            row = {"workspace": self.store.workspace, "run": self.run, **values}
            with self.store.write() as tx:
                if self.store.insert_new(tx, schema.run, row):
                    break
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self._lock = _try_lock(self.folder / LOCK)
        self._end_orphans(project.settings.name)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return clock.elapsed() - self._began

    @property
    def folder(self) -> Path:
        return self.workspace.dir("runs") / self.run

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def _end_orphans(self, model: str) -> None:
        """Runs whose process was killed are failed: each live one holds a lock in its folder."""
        table = schema.run
        mine = sa.and_(table.c.workspace == self.store.workspace, table.c.model == model, table.c.status == "running")
        with self.store.read() as tx:
            names = tx.scalars(sa.select(table.c.run).where(mine, table.c.run != self.run)).all()
        for name in names:
            path = self.workspace.dir("runs") / name / LOCK
            held = _try_lock(path) if path.exists() else None
            if held is None:
                continue
            os.close(held)
            values = {"status": "failed", "error": "its process was ended from outside", "ended_at": clock.now()}
            with self.store.write() as tx:
                tx.execute(sa.update(table).where(mine, table.c.run == name).values(**values))

    def fail(self, exc: BaseException) -> None:
        """Record why; the log gets the trace. Must not hide the error itself."""
        message = str(exc) if isinstance(exc, FairwayError) else f"{type(exc).__name__}: {exc}"
        trace = exc.trace if isinstance(exc, ModelCodeError) and exc.trace else "".join(traceback.format_exception(exc))
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"\n{message}\n\n{trace}\n")
        with self.store.write() as tx:
            self._end(tx, status="failed", error=message[:2000])

    def finish(self, tx: sa.Connection, result: TrainResult) -> None:
        """In the caller's transaction, beside the version."""
        plain = result.as_dict()
        elsewhere = ("checks", "metrics", "steps") if result.version is not None else ("steps",)
        stored = {key: value for key, value in plain.items() if key not in elsewhere}
        self._end(tx, status="done", result=stored)

    def _end(self, tx: sa.Connection, **values: Any) -> None:
        table = schema.run
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        keyed = [line.as_dict() | {"key": self._lines.keys.get(line.name)} for line in self._lines.lines]
        tx.execute(
            sa.update(table)
            .where(table.c.workspace == self.store.workspace, table.c.run == self.run)
            .values(ended_at=clock.now(), steps=keyed, **values)
        )


def _try_lock(path: Path) -> int | None:
    """The file, locked for as long as it is open and this process lives; None while another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
