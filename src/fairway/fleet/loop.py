"""The loop: what fairway does by itself between two looks of a person. One `tick` over stored state.

Order within a tick: labels meet predictions; matured rows enter the performance and rollout sums; windows close and are
judged; rollouts take a look; alarms and ages start retrains; reviews whose time is over get their standing answer.
Every part is one transaction of its own and finds nothing to do when it is repeated, so a tick may be killed anywhere.
"""

import json
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.contract.settings import Settings
from fairway.data.fold import FoldedBatch, Observer
from fairway.data.labels import match_labels
from fairway.fleet import retrain, reviews
from fairway.monitor import alarms, drift, performance, windows
from fairway.monitor.losses import Labels
from fairway.monitor.resolved import settings_of, version_row
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
    for endpoint in live_endpoints(store):
        changed |= _performance(workspace, endpoint, now)
    changed |= _windows(store, now)
    for endpoint in live_endpoints(store):
        changed |= _measure_windows(workspace, endpoint, now)
    changed |= controller.tick(store, now)
    for endpoint in live_endpoints(store):
        changed |= _retrain(store, endpoint, now)
    changed |= reviews.due(store, now)
    return changed


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
    with store.write() as tx:
        return bool(match_labels(store, tx, now))


def _champion(workspace: Workspace, tx: Connection, endpoint: Row) -> tuple[Row, Settings, Labels]:
    version = version_row(workspace.store, tx, endpoint.model, endpoint.champion)
    settings = settings_of(workspace.store, tx, endpoint.model, endpoint.champion)
    classes = read_manifest(workspace.blobs.get(version.artifact)).classes if settings.task == "multiclass" else ()
    return version, settings, Labels.of(settings, classes)


def _performance(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    """Matured, labelled rows enter the champion's detectors and the rollout's primary sums, each once."""
    store = workspace.store
    with store.read() as tx:
        version, settings, labels = _champion(workspace, tx, endpoint)
        if settings.label_delay is None:
            return False
        if not performance.matured(store, tx, endpoint.endpoint, settings.label_delay, now):
            return False
    with store.write() as tx:
        rows = performance.matured(store, tx, endpoint.endpoint, settings.label_delay, now)
        performance.judge_rows(
            store, tx, model=endpoint.model, version=version.version, metrics=version.metrics, settings=settings,
            labels=labels, rows=rows, now=now,
        )  # fmt: skip
        sums.fold_matured(store, tx, rows, now)
        performance.revise_windows(
            store, tx, model=endpoint.model, settings=settings, labels=labels, times=[row["at"] for row in rows]
        )
        performance.mark(store, tx, rows, now)
    return True


def _windows(store: Store, now: datetime) -> bool:
    with store.read() as tx:
        due = windows.due(store, tx, now)
    for row in due:
        with store.write() as tx:
            table = schema.endpoint
            champion = tx.scalar(
                sa.select(table.c.champion).where(table.c.workspace == store.workspace, table.c.endpoint == row.model)
            )
            number = champion if champion is not None else int(row.profile["reference"])
            drift.close_window(store, tx, row, settings_of(store, tx, row.model, number), now)
    return bool(due)


def _measure_windows(workspace: Workspace, endpoint: Row, now: datetime) -> bool:
    """Windows whose labels have matured get their live metric."""
    store = workspace.store
    with store.read() as tx:
        version, settings, labels = _champion(workspace, tx, endpoint)
        due = performance.due_windows(store, tx, model=endpoint.model, settings=settings, now=now)
    if not due:
        return False
    manifest = read_manifest(workspace.blobs.get(version.artifact))
    digest = manifest.files.get("reference.json")
    made = json.loads(workspace.blobs.get(digest)) if digest else {}
    with store.write() as tx:
        for row in due:
            performance.judge_window(
                store, tx, row, version=version.version, settings=settings, labels=labels,
                reference=made.get("losses", []), now=now,
            )  # fmt: skip
    return True


def _retrain(store: Store, endpoint: Row, now: datetime) -> bool:
    with store.write() as tx:
        changed = False
        for alarm in alarms.open_alarms(store, tx, model=endpoint.model, kind="performance"):
            if alarm.evidence.get("version") != endpoint.champion:
                alarms.close(store, tx, alarm.alarm, now=now, why=f"@{endpoint.champion} is the champion now")
                changed = True
        return retrain.act(store, tx, endpoint, now) or changed
