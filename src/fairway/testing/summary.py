"""What a replay led to, as one JSON-able value: counts, live metric per week, versions, rollouts, alarms, reviews."""

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from fairway.data import log
from fairway.data.project import Project
from fairway.stats import intervals, losses
from fairway.store import schema
from fairway.store.base import jsonable
from fairway.testing.replay import Replayed

_WEEK = timedelta(days=7)
_OUTCOMES: dict[str, tuple[sa.Table, tuple[str, ...]]] = {
    "versions": (schema.version, ("version", "verdict", "artifact", "trained_until", "created_at")),
    "rollouts": (
        schema.rollout,
        ("rollout", "champion", "challenger", "phase", "step", "started_at", "ended_at", "decision"),
    ),
    "alarms": (schema.alarm, ("alarm", "kind", "subject", "severity", "opened_at", "closed_at", "action")),
    "reviews": (schema.review, ("review", "kind", "subject", "question", "opened_at", "answer")),
}


def summary_of(project: Project, done: Replayed, *, start: datetime, end: datetime) -> dict[str, Any]:
    """The replay's outcome; weeks count from `start`, and only labelled predictions are judged."""
    return {
        "model": project.settings.name,
        "from": start.isoformat(),
        "to": end.isoformat(),
        "predictions": done.predictions,
        "labels": done.labels,
        "events": done.events,
        "weeks": weekly(project, start, end),
        **outcomes(project),
        "folder": str(project.root),
    }


def outcomes(project: Project) -> dict[str, list[dict[str, Any]]]:
    """Versions, rollouts, alarms and reviews of the model, in the order in which they came."""
    store, found = project.workspace.store, {}
    with store.read() as tx:
        for name, (table, columns) in _OUTCOMES.items():
            rows = tx.execute(
                sa.select(*(table.c[c] for c in columns))
                .where(table.c.workspace == store.workspace, table.c.model == project.settings.name)
                .order_by(*table.primary_key)
            )
            found[name] = [jsonable(dict(row._mapping)) for row in rows]
    for rollout in found["rollouts"]:
        decision = rollout.pop("decision") or {}
        rollout["decision"] = decision.get("decision")
        rollout["reason"] = decision.get("reason")
    return found


def weekly(project: Project, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Per week: predictions, labels, and the live metric of what was served, with its 95 % interval."""
    frame, found = log.predictions(project.workspace, project.settings.name, start, end), []
    at = start
    while at < end:
        part = frame.filter(pl.col("at").is_between(at, at + _WEEK, closed="left"))
        labelled = part.filter(pl.col("label").is_not_null())
        week: dict[str, Any] = {"from": at.date().isoformat(), "predictions": part.height, "labels": labelled.height}
        found.append(week | _live(project, labelled))
        at += _WEEK
    return found


def _live(project: Project, rows: pl.DataFrame) -> dict[str, Any]:
    """The served answers against their labels."""
    served = [_served(text) for text in rows["answers"]]
    kept = [
        (json.loads(label), output) for label, output in zip(rows["label"], served, strict=True) if output is not None
    ]
    if len(kept) < 30:
        return {"metric": None, "why": f"too few: {len(kept)} labelled answers"}
    truth, outputs = [k[0] for k in kept], np.array([k[1] for k in kept], dtype=float)
    settings = project.settings
    if settings.task == "binary":
        y = np.array([str(t) == str(settings.positive) for t in truth], dtype=float)
        if y.min() == y.max():
            return {"metric": None, "why": "one class only"}
        value, low, high = intervals.auc_interval(y, outputs)
        return {
            "metric": "auc",
            "value": value,
            "low": low,
            "high": high,
            "brier": float(losses.brier(y, outputs).mean()),
        }
    if settings.task == "regression":
        error = losses.absolute_error(np.array(truth, dtype=float), outputs)
        spread = 1.96 * float(error.std()) / len(error) ** 0.5
        mean = float(error.mean())
        return {"metric": "mae", "value": mean, "low": mean - spread, "high": mean + spread}
    classes = sorted(str(v) for v in project.contract.column(settings.target).values)
    right = sum(classes[int(np.argmax(o))] == str(t) for t, o in zip(truth, outputs, strict=True))
    low, high = intervals.wilson(right, len(truth))
    return {"metric": "accuracy", "value": right / len(truth), "low": low, "high": high}


def _served(answers: str) -> Any:
    """The output that the caller got, or None."""
    for answer in json.loads(answers).values():
        if answer["role"] == "served" and answer["status"] == "ok":
            return answer["output"]
    return None
