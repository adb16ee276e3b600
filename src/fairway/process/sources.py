"""Source tables while they are served: their history fills the online state, and new rows in it become events."""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.data.project import Project, project_of
from fairway.data.segment import EventRow
from fairway.data.source_poll import poll
from fairway.errors import FairwayError, StoreUnavailable
from fairway.serve.online import Need, OnlineFailed, OnlineStore, online_place, open_online
from fairway.serve.online_fill import fill, needs_of_model
from fairway.store import schema
from fairway.store.workspace import Workspace

LOOK_S = 5.0  # between two looks at which projects and sources there are

log = logging.getLogger(__name__)


class Sources:
    """The sources of every served model with a history (path or sql). `keep` and `fill` may come from other threads.

    A model's sources are filled when this process first sees it, whatever was filled before: putting an event twice is
    harmless, and a fill that a crash cut short is finished so.
    """

    def __init__(self, workspace: Workspace, *, place: str | None = None) -> None:
        """place: of the online state, where it is not the workspace's own (a backtest's)."""
        self.workspace = workspace
        self._place = place or online_place(workspace.folder / "online.db")
        self._online: OnlineStore | None = None
        self._looked_s: float | None = None
        self._due_s: dict[tuple[str, str], float] = {}
        self._filled: dict[str, list[Need]] = {}
        self._filling = threading.Lock()
        self._said: dict[str, str] = {}

    def round(self, now: datetime) -> bool:
        """Look at what is due; whether anything was new. A source that can't be read is said once, and tried again."""
        if self._looked_s is not None and clock.elapsed() - self._looked_s < LOOK_S:
            return False
        self._looked_s = clock.elapsed()
        changed = False
        for project in self._projects():
            for name, settings in project.settings.sources.items():
                key = (project.settings.name, name)
                if (settings.path is None and settings.sql is None) or clock.elapsed() < self._due_s.get(key, 0.0):
                    continue
                self._due_s[key] = clock.elapsed() + settings.every.total_seconds()
                changed |= self._look(project, name, now)
        return changed

    def close(self) -> None:
        """Idempotent."""
        if self._online is not None:
            self._online.close()
            self._online = None

    def _look(self, project: Project, name: str, now: datetime) -> bool:
        what = f"source {name} of {project.settings.name}"
        try:
            # The log first: an event that is looked up and then lost could never be repeated in training.
            fresh = poll(project, name, now=now)
            if fresh:
                with self._filling:
                    self._open().put(name, fresh)
            changed = self._fill(project, now) > 0 or bool(fresh)
        except StoreUnavailable:
            raise
        except FairwayError as error:
            if self._said.get(what) != str(error):
                log.warning("%s: %s", what, error)
            self._said[what] = str(error)
            return False
        self._said.pop(what, None)
        return changed

    def keep(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Put folded events once more: a gateway that died between the log and the online state left them out of it."""
        by_source: dict[str, list[EventRow]] = {}
        for e in events:
            row = EventRow(e["key"], clock.to_us(e["at"]), e["data"], clock.to_us(e["known_at"]))
            by_source.setdefault(e["source"], []).append(row)
        try:
            with self._filling:
                for source, rows in by_source.items():
                    self._open().put(source, rows)
        except OnlineFailed as error:  # they are in the log: the next start fills them in
            log.warning("folded events: %s", error)

    def fill(self, model: str, now: datetime) -> int:
        """Fill the online state for a model about to be served; how many events were new. Raises: FairwayError."""
        return self._fill(project_of(self.workspace, model), now)

    def _fill(self, project: Project, now: datetime) -> int:
        """Once for what the model's versions look up: a version that looks further back is filled for anew."""
        name = project.settings.name
        with self._filling:
            needs = needs_of_model(self.workspace, name)
            if self._filled.get(name) == needs:
                return 0
            new = fill(self._open(), project, needs, now=now)
            self._filled[name] = needs
            return new

    def _open(self) -> OnlineStore:
        if self._online is None:
            self._online = open_online(self._place, workspace=self.workspace.name)
        return self._online

    def _projects(self) -> list[Project]:
        store, table = self.workspace.store, schema.endpoint
        with store.read() as tx:
            models = tx.scalars(
                sa.select(table.c.model)
                .where(table.c.workspace == store.workspace, table.c.champion.is_not(None))
                .distinct()
                .order_by(table.c.model)
            ).all()
        found = []
        for model in models:
            try:
                found.append(project_of(self.workspace, model))
                self._said.pop(model, None)
            except StoreUnavailable:
                raise
            except FairwayError as error:
                if self._said.get(model) != str(error):
                    log.warning("the sources of %s are not looked at: %s", model, error)
                self._said[model] = str(error)
        return found
