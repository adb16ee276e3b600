"""The loop: what fairway does by itself between two looks of a person. One `tick` over stored state.

Order within a tick: labels meet predictions; matured rows enter the performance and rollout sums; windows close and are
judged, and some of their predictions recomputed; rollouts take a look; alarms and ages start retrains; reviews whose
time is over get their standing answer; schedules queue what is due (a log's old rows are dropped so, once a day).
Every part is one transaction of its own and finds nothing to do when it is repeated, so a tick may be killed anywhere.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.contract.settings import Settings
from fairway.data.fold import FoldedBatch, Observer
from fairway.data.labels import match_labels
from fairway.fleet import retrain, reviews, schedules
from fairway.monitor import alarms, drift, equality, performance, windows
from fairway.monitor.losses import Labels
from fairway.monitor.performance import HeldOut, held_out
from fairway.monitor.resolved import settings_from, version_row
from fairway.rollout import controller, sums, traffic
from fairway.runtime.package import read_manifest
from fairway.store import schema
from fairway.store.base import Row, Store
from fairway.store.workspace import Workspace


def _observe_rollouts(store: Store, tx: Connection, batch: FoldedBatch) -> None:
    sums.observe(store, tx, batch.predictions)


def _observe_windows(store: Store, tx: Connection, batch: FoldedBatch) -> None:
    windows.observe(store, tx, batch.predictions)


OBSERVERS: list[Observer] = [_observe_rollouts, _observe_windows]


def tick(workspace: Workspace, now: datetime) -> bool:
    """Do all that is due at `now`; True if anything was written. Call until False to settle."""
    store = workspace.store
    changed = _labels(store, now)
    endpoints = live_endpoints(store)
    for endpoint in endpoints:
        changed |= _performance(workspace, endpoint, now)
    changed |= _windows(workspace, now)
    for endpoint in endpoints:
        changed |= _measure_windows(workspace, endpoint, now)
        changed |= _measure_equality(workspace, endpoint, now)
    if controller.tick(store, now):
        changed, endpoints = True, live_endpoints(store)  # a champion may have come or gone
    for endpoint in endpoints:
        changed |= _retrain(workspace, endpoint, now)
    changed |= reviews.due(store, now)
    changed |= schedules.tick(workspace, now)
    return changed


@dataclass(frozen=True)
class _Version:
    """What the loop needs of a version; it never changes, so it is read once. losses: reference windows' means."""

    settings: Settings
    labels: Labels
    held_out: HeldOut
    losses: tuple[dict[str, float], ...]


@lru_cache(maxsize=256)
def _version(workspace: Workspace, model: str, number: int) -> _Version:
    with workspace.store.read() as tx:
        row = version_row(workspace.store, tx, model, number)
    settings, manifest = settings_from(row.settings), read_manifest(workspace.blobs.get(row.artifact))
    digest = manifest.files.get("reference.json")
    made = json.loads(workspace.blobs.get(digest)) if digest else {}
    labels = Labels.of(settings, manifest.classes)
    return _Version(settings, labels, held_out(row.metrics), tuple(made.get("losses", ())))


def live_endpoints(store: Store) -> list[Row]:
    """Endpoints of models that have a champion, by name; staging is not among them."""
    table = schema.endpoint
    with store.read() as tx:
        return list(
            tx.execute(
                sa.select(table)
                .where(
                    table.c.workspace == store.workspace,
                    table.c.endpoint == table.c.model,
                    table.c.state == traffic.LIVE,
                    table.c.champion.is_not(None),
                )
                .order_by(table.c.endpoint)
            )
        )


def _labels(store: Store, now: datetime) -> bool:
    table = schema.label
    with store.read() as tx:
        waiting = sa.select(table.c.prediction).where(table.c.workspace == store.workspace, table.c.matched.is_(False))
        if tx.execute(waiting.limit(1)).first() is None:
            return False
    with store.write() as tx:
        return bool(match_labels(store, tx, now))


def _performance(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    """Matured, labelled rows enter the champion's detectors and the rollout's primary sums, each once."""
    store, version = workspace.store, _version(workspace, endpoint.model, endpoint.champion)
    settings, labels = version.settings, version.labels
    if settings.label_delay is None:
        return False
    with store.read() as tx:
        if not performance.any_matured(store, tx, endpoint.endpoint, settings.label_delay, now):
            return False
    with store.write() as tx:
        rows = performance.matured(store, tx, endpoint.endpoint, settings.label_delay, now)
        performance.judge_rows(
            store, tx, model=endpoint.model, version=endpoint.champion, reference=version.held_out, settings=settings,
            labels=labels, rows=rows, now=now,
        )  # fmt: skip
        sums.fold_matured(store, tx, rows, now)
        performance.revise_windows(
            store, tx, model=endpoint.model, settings=settings, labels=labels, times=[row["at"] for row in rows]
        )
        performance.mark(store, tx, rows, now)
    return True


def _windows(workspace: Workspace, now: datetime) -> bool:
    store, table = workspace.store, schema.endpoint
    with store.read() as tx:
        due = windows.due(store, tx, now)
    for found in due:
        with store.write() as tx:
            row = windows.again(store, tx, found)
            if row.closed_at is not None:
                continue
            champion = tx.scalar(
                sa.select(table.c.champion).where(table.c.workspace == store.workspace, table.c.endpoint == row.model)
            )
            number = champion if champion is not None else int(row.profile["reference"])
            drift.close_window(store, tx, row, _version(workspace, row.model, number).settings, now)
    return bool(due)


def _measure_windows(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    """Windows whose labels have matured get their live metric."""
    store, version = workspace.store, _version(workspace, endpoint.model, endpoint.champion)
    with store.read() as tx:
        due = performance.due_windows(store, tx, model=endpoint.model, settings=version.settings, now=now)
    for found in due:
        with store.write() as tx:
            row = windows.again(store, tx, found)
            if row.performance is not None:
                continue
            performance.judge_window(
                store, tx, row, version=endpoint.champion, settings=version.settings, labels=version.labels,
                reference=version.losses, now=now,
            )  # fmt: skip
    return bool(due)


def _measure_equality(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    """Closed windows get the share of their predictions that training's code gives too."""
    store, settings = workspace.store, _version(workspace, endpoint.model, endpoint.champion).settings
    with store.read() as tx:
        due = equality.due(store, tx, endpoint.model, now)
    for row in due:
        found = equality.measure(workspace, row, settings, now)
        with store.write() as tx:
            still = [(r.contract, r.start_at) for r in equality.due(store, tx, endpoint.model, now)]
            if (row.contract, row.start_at) in still:
                equality.record(store, tx, windows.again(store, tx, row), found, settings, now)
    return bool(due)


def _retrain(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    store, settings = workspace.store, _version(workspace, endpoint.model, endpoint.champion).settings
    with store.read() as tx:
        if not retrain.anything(store, tx, endpoint, settings, now):
            return False
    with store.write() as tx:
        changed = False
        for alarm in alarms.open_alarms(store, tx, model=endpoint.model, kind="performance"):
            if alarm.evidence.get("version") != endpoint.champion:
                alarms.close(store, tx, alarm.alarm, now=now, why=f"@{endpoint.champion} is the champion now")
                changed = True
        return retrain.act(store, tx, endpoint, settings, now) or changed
