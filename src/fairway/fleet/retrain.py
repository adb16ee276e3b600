"""When the loop trains: by age, by a performance alarm, by a person's answer; and what becomes of a candidate.

"Retrain" never means "replace": a candidate goes through its gate and its own rollout (METHODS 9).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.settings import Settings
from fairway.monitor import alarms
from fairway.monitor.resolved import settings_of
from fairway.path import source_hold
from fairway.rollout import asks, controller
from fairway.store import jobs, schema
from fairway.store.base import Row, Store

MONTH = timedelta(days=30)
ANSWER_IN = timedelta(days=3)
FAILS_TO_ASK = 2
HELD = "held"  # verdict of a training that waits for a table: it is no attempt, and does not count as one
LOOK_AGAIN = timedelta(minutes=15)  # at a table that is late, empty or shrunk
CHOICES = {
    "retrain": "train again now, on what is known by then",
    "rollback": "to the version before",
    "keep": "leave the champion as it is and close the alarm",
}


def attempts(store: Store, tx: Connection, model: str) -> list[Row]:
    """Training jobs of this model that the loop submitted, oldest first, without those that only met a held table."""
    return [row for row in _submitted(store, tx, model) if not _held(row)]


def _submitted(store: Store, tx: Connection, model: str) -> list[Row]:
    table = schema.job
    rows = tx.execute(
        sa.select(table).where(table.c.workspace == store.workspace, table.c.kind == "train", table.c.key == model)
    ).all()
    return sorted(rows, key=lambda row: (row.queued_at, len(row.job), row.job))


def _held(row: Row) -> bool:
    return bool(row.result) and row.result.get("verdict") == HELD


def waits_for_table(store: Store, tx: Connection, model: str) -> Row | None:
    """The newest training job, when it met a table that is late, empty or shrunk."""
    last = _submitted(store, tx, model)[-1:]
    return last[0] if last and _held(last[0]) else None


def busy(store: Store, tx: Connection, model: str) -> bool:
    """Whether a candidate of this model is being made, deployed or rolled out."""
    table = schema.job
    working = tx.scalar(
        sa.select(sa.func.count())
        .select_from(table)
        .where(
            table.c.workspace == store.workspace,
            table.c.key == model,
            table.c.kind.in_(("train", "deploy")),
            table.c.status.in_(("queued", "running")),
        )
    )
    return bool(working) or controller.open_rollout(store, tx, model) is not None


def allowed(store: Store, tx: Connection, model: str, settings: Settings, now: datetime) -> str | None:
    """Why no retrain may start now, or None: one at a time, one per window, a budget per month."""
    if busy(store, tx, model):
        return "one is under way"
    past = [row.queued_at for row in attempts(store, tx, model)]
    if past and past[-1] > now - settings.monitor.window:
        return "one per window"
    if sum(at > now - MONTH for at in past) >= settings.retrain.per_month:
        return f"{settings.retrain.per_month} in 30 days"
    return None


def submit(store: Store, tx: Connection, model: str, *, cause: str) -> str | None:
    return jobs.submit(store, tx, kind="train", key=model, payload={"model": model, "cause": cause})


def anything(store: Store, tx: Connection, endpoint: Row, settings: Settings, now: datetime) -> bool:
    """Whether there may be something to do: an open performance alarm, or an age that is reached. Only reads."""
    if alarms.open_alarms(store, tx, model=endpoint.model, kind="performance"):
        return True
    if waits_for_table(store, tx, endpoint.model) is not None:
        return True
    every = settings.retrain.every
    return every is not None and now >= last_attempt(store, tx, endpoint) + every


def act(store: Store, tx: Connection, endpoint: Row, settings: Settings, now: datetime) -> bool:
    """Start what is due for one live model; True if anything was written."""
    model = endpoint.model
    held = waits_for_table(store, tx, model)
    if held is not None:  # once its owner has answered, or after a while: the table may be as before
        if busy(store, tx, model) or (source_hold.held(store, tx, model) and now < held.queued_at + LOOK_AGAIN):
            return False
        return submit(store, tx, model, cause=held.payload["cause"]) is not None
    waiting = [a for a in alarms.open_alarms(store, tx, model=model, kind="performance") if a.severity == "alarm"]
    if waiting and settings.retrain.on_alarm and not asked_enough(store, tx, model, waiting[0].alarm):
        if allowed(store, tx, model, settings, now) is None:
            job = submit(store, tx, model, cause=waiting[0].alarm)
            alarms.update(store, tx, waiting[0].alarm, action={"row": 4, "did": "retrain", "job": job})
            return job is not None
        return False
    every = settings.retrain.every
    if every is None or now < last_attempt(store, tx, endpoint) + every:
        return False
    if allowed(store, tx, model, settings, now) is not None:
        return False
    return submit(store, tx, model, cause="schedule") is not None


def last_attempt(store: Store, tx: Connection, endpoint: Row) -> datetime:
    """Row 9: age counts from the champion's training or, when candidates failed since, from the last of them."""
    table = schema.version
    made = tx.scalar(
        sa.select(table.c.created_at).where(
            table.c.workspace == store.workspace, table.c.model == endpoint.model, table.c.version == endpoint.champion
        )
    )
    newest: datetime = max([*filter(None, [made]), *(row.queued_at for row in attempts(store, tx, endpoint.model))])
    return newest


def asked_enough(store: Store, tx: Connection, model: str, alarm: str) -> bool:
    """Row 10: after two failed candidates in a row the question is a person's."""
    mine = [row for row in attempts(store, tx, model) if row.payload["cause"] == alarm and row.status != "queued"]
    last = [row for row in mine if row.status in ("done", "failed")][-FAILS_TO_ASK:]
    return len(last) == FAILS_TO_ASK and all(not passed(row.result) for row in last)


def passed(result: Mapping[str, Any] | None) -> bool:
    return bool(result) and (result or {}).get("verdict") == "pass"


def after_training(store: Store, tx: Connection, model: str, cause: str, result: Mapping[str, Any]) -> None:
    """What follows a finished training: the rollout of a candidate that passed, or a question with the evidence.

    result: run, version (None when nothing was registered), verdict ("same": nothing new to learn from), failed (names
    of checks), error.
    """
    now = clock.now()
    version = result.get("version")
    if result["verdict"] == HELD:
        return  # the table's owner is asked; the loop looks again
    if result["verdict"] == "same" and cause == "schedule":
        return  # the next period asks again
    if version is not None and result["verdict"] == "pass":
        jobs.submit(store, tx, kind="deploy", key=model, payload={"model": model, "version": version, "cause": cause})
        return
    champion = _champion(store, tx, model)
    settings = settings_of(store, tx, model, champion if champion is not None else int(version or 1))
    failing = [row for row in attempts(store, tx, model) if row.payload["cause"] == cause and not passed(row.result)]
    what = f"{model}@{version}" if version is not None else result.get("run") or "a retrain"
    if result["verdict"] == "same":
        question = f"retraining gives {what} again: there is nothing new to learn from. What now?"
        choices = dict(CHOICES)
    elif version is not None and result["verdict"] == "ask":
        question = f"{what} passed with too little evidence in some checks. Deploy it?"
        choices = {"deploy": f"start the rollout of {what}", "keep": CHOICES["keep"]}
    else:
        reason = result.get("error") or ", ".join(result.get("failed") or []) or "its gate"
        question = f"{what} may not be deployed ({reason}). Retrain, keep the champion, or go back?"
        choices = dict(CHOICES)
    row = 10 if cause.startswith("alarm-") and len(failing) >= FAILS_TO_ASK else 4
    asks.open_review(
        store, tx, model=model, kind="retrain", subject=cause if cause.startswith("alarm-") else model,
        question=question,
        evidence={**dict(result), "row": row, "cause": cause, "champion": champion, "failed_candidates": len(failing)},
        choices=choices, assignee=settings.owner, now=now, due_at=now + ANSWER_IN,
    )  # fmt: skip


def _champion(store: Store, tx: Connection, model: str) -> int | None:
    table = schema.endpoint
    found: int | None = tx.scalar(
        sa.select(table.c.champion).where(table.c.workspace == store.workspace, table.c.endpoint == model)
    )
    return found
