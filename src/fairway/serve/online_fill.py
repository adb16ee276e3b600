"""Filling the online state from a source's history and log: what served versions may look up from now on, no more.

What is filled is what training reads (`data.snapshot.source_events`), so a value looked up in it is the value trained
on; and a state that was lost, or is new, is whole again. Reads tables and the store: never used by a gateway.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import sqlalchemy as sa

from fairway import clock
from fairway.data.project import Project
from fairway.data.snapshot import source_events
from fairway.data.source_poll import event_rows
from fairway.data.view_events import KNOWN_AT
from fairway.runtime.package import read_manifest
from fairway.serve.desired import versions_needed
from fairway.serve.endpoint import View
from fairway.serve.lookups import needs_of
from fairway.serve.online import Need, OnlineStore
from fairway.store import schema
from fairway.store.workspace import Workspace

LAST = datetime(9999, 1, 1, tzinfo=UTC)
SPARE = timedelta(days=1)  # look-ups may be that much in the past, as where events are forgotten


def needs_of_model(workspace: Workspace, model: str) -> list[Need]:
    """What the versions of a model that serve, shadow or stand by look up."""
    store, endpoint, version = workspace.store, schema.endpoint, schema.version
    with store.read() as tx:
        rows = tx.execute(
            sa.select(endpoint).where(endpoint.c.workspace == store.workspace, endpoint.c.model == model)
        ).all()
        numbers = {number for row in rows for number in versions_needed(dict(row._mapping))}
        artifacts = tx.scalars(
            sa.select(version.c.artifact).where(
                version.c.workspace == store.workspace, version.c.model == model, version.c.version.in_(numbers)
            )
        ).all()
    found = [view for artifact in artifacts for view in read_manifest(workspace.blobs.get(artifact)).views]
    return needs_of(
        View(v["name"], v["source"], v["entity"], int(v["window_us"]), bool(v.get("latest"))) for v in found
    )


def fill(online: OnlineStore, project: Project, needs: Sequence[Need], *, now: datetime) -> int:
    """Put what the project's sources hold and `needs` reach from now on; how many events were new. Safe to repeat.

    Raises: DataError, SettingsError for a history that can't be read; OnlineFailed.
    """
    online.watch([need.slot for need in needs])
    new = 0
    for name, settings in project.settings.sources.items():
        mine = [need for need in needs if need.slot.source == name]
        if mine:
            # Also what has happened and is not known yet: nothing else would bring it, and no look-up sees it before.
            happened = source_events(project, name, now=LAST).filter(pl.col(settings.at) <= now)
            events = reachable(happened, mine, at=settings.at, now=now)
            for rows in event_rows(project, name, events):
                new += online.put(name, rows, history=True)
    return new


def reachable(events: pl.DataFrame, needs: Iterable[Need], *, at: str, now: datetime) -> pl.DataFrame:
    """The events of a source that a look-up after now - SPARE can see."""
    horizon = clock.to_us(now - SPARE)
    time, known = pl.col(at).dt.timestamp("us"), pl.col(KNOWN_AT).dt.timestamp("us")
    keep = pl.lit(False)
    for need in needs:
        keep |= time > horizon - need.window_us
        if need.latest_us:
            settled = pl.when((time <= horizon) & (known <= horizon)).then(time)
            newest = settled.max().over(need.slot.column)
            keep |= (time > horizon - need.latest_us) & ((time >= newest) | newest.is_null())
    return events.filter(keep)
