"""Live performance of the champion from matured labels (METHODS 4a), each prediction judged once, in order of time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.settings import Settings
from fairway.monitor import alarms, skill, windows
from fairway.monitor.losses import Labels, primary_loss, row_loss, truth
from fairway.monitor.resolved import as_dict
from fairway.stats.drift import MIN_WINDOWS
from fairway.stats.intervals import auc_interval, wilson
from fairway.stats.performance import EDetector, LossVerdict, judge_loss_window, reference_rate
from fairway.stats.performance import update as feed
from fairway.store import schema
from fairway.store.base import Row, Store

STATE = "performance"
SUBJECT = "live loss"  # one cause, one alarm, whichever rule saw it first
WAIT = timedelta(days=8)  # labels later than label_delay + 7 d are not matched any more
WARM_ROWS = 1_000  # without so many held-out rows, the first live ones are the reference
MATURE_SHARE = 0.9
LOW_BASE = 0.2
LIVE_WINDOWS = 28
_CHUNK = 400

Json = dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """What the version's evaluation says that live rows are held against; None where it does not."""

    n: int = 0
    error: float | None = None
    base: float | None = None


def held_out(metrics: Mapping[str, Any]) -> HeldOut:
    """Read from `version.metrics` (an Evaluation's JSON form)."""
    found = metrics.get("metrics", metrics)
    n = int(metrics.get("n") or 0)
    accuracy = found.get("accuracy")
    value = accuracy.get("value") if isinstance(accuracy, Mapping) else accuracy
    rows: list[int] = list(metrics.get("class_rows") or [])
    base = rows[1] / sum(rows) if len(rows) == 2 and all(rows) else None
    return HeldOut(n, None if value is None else 1.0 - float(value), base)


# -- which rows ------------------------------------------------------------------------------------------------------


def any_matured(store: Store, tx: Connection, endpoint: str, label_delay: timedelta, now: datetime) -> bool:
    """Whether `matured` would find a row."""
    return tx.execute(_matured(store, endpoint, label_delay, now).limit(1)).first() is not None


def matured(store: Store, tx: Connection, endpoint: str, label_delay: timedelta, now: datetime) -> list[Json]:
    """Labelled predictions whose outcome window has closed and that were not judged yet, in order of time.

    The caller judges them and marks them (`mark`) in one transaction, so that each enters the sums once.
    """
    return [dict(row._mapping) for row in tx.execute(_matured(store, endpoint, label_delay, now))]


def _matured(store: Store, endpoint: str, label_delay: timedelta, now: datetime) -> sa.Select[Any]:
    table = schema.prediction
    return (
        sa.select(table)
        .where(
            table.c.workspace == store.workspace, table.c.endpoint == endpoint, table.c.judged_at.is_(None),
            table.c.at <= now - label_delay, table.c.at > now - label_delay - WAIT, table.c.label_at.is_not(None),
        )
        .order_by(table.c.at, table.c.prediction)
    )  # fmt: skip


def mark(store: Store, tx: Connection, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """These predictions have been judged."""
    table, ids = schema.prediction, [row["prediction"] for row in rows]
    for start in range(0, len(ids), _CHUNK):
        tx.execute(
            sa.update(table)
            .where(table.c.workspace == store.workspace, table.c.prediction.in_(ids[start : start + _CHUNK]))
            .values(judged_at=now)
        )


# -- row by row ------------------------------------------------------------------------------------------------------


def judge_rows(
    store: Store,
    tx: Connection,
    *,
    model: str,
    version: int,
    reference: HeldOut,
    settings: Settings,
    labels: Labels,
    rows: Sequence[Mapping[str, Any]],
    now: datetime,
) -> None:
    """Feed matured rows to the champion's detectors and raise the alarm when one fires."""
    state = load(store, tx, model, version)
    answered = []
    for row in rows:
        answer, y = row["answers"].get(str(version)), truth(labels, row["label"])
        if answer is not None and answer["status"] == "ok" and y is not None:
            answered.append((answer["output"], row["label"], y))
    if not answered or settings.task == "regression":
        return
    state, fired = advance(state, answered, reference, settings, labels)
    save(store, tx, model, state)
    for rule in fired:
        _raise(store, tx, model, version, rule, settings, now)


def advance(
    state: Json, answered: Sequence[tuple[Any, Any, float]], reference: HeldOut, settings: Settings, labels: Labels
) -> tuple[Json, list[Json]]:
    """New state and the rules that fired, with their numbers; pure. answered: (output, label, truth) rows."""
    state = dict(state)
    fired: list[Json] = []
    errors = [int(row_loss("zero_one", labels, label, output) or 0) for output, label, _ in answered]
    if "detector" not in state:
        state, used = _warm_up(state, errors, [y for _, _, y in answered], reference, settings, labels)
        errors, answered = errors[used:], answered[used:]
    if "detector" not in state or not errors:
        return state, fired
    if state["detector"] is not None:
        before = EDetector.from_dict(state["detector"])
        after = feed(before, errors)
        state["detector"] = after.state.as_dict()
        if after.alarms:
            rule = {"rule": "error rate", "accepted": before.p0, "level": before.c, "rows": after.state.n}
            # At a low base rate the error is the base rate, whatever the model does: a stormy day is no bad model.
            # As with the primary loss (METHODS 1f) it decides nothing there; the skill detector does.
            low = labels.task == "binary" and not LOW_BASE <= (state["skill"] or {}).get("base", 0.5) <= 1.0 - LOW_BASE
            fired.append({**rule, "severity": "notice"} if low else rule)
    if state["skill"] is not None:
        old = skill.SkillDetector.from_dict(state["skill"])
        new, level = skill.update(old, [(float(output), y) for output, _, y in answered])
        state["skill"] = new.as_dict()
        if new.alarms > old.alarms:
            fired.append({"rule": "no better than the base rate", "base": old.base, "level": level, "rows": new.n})
    return state, fired


def _warm_up(
    state: Json, errors: Sequence[int], truths: Sequence[float], known: HeldOut, settings: Settings, labels: Labels
) -> tuple[Json, int]:
    """Start the detectors from held-out figures, or from the first live rows when those are too few."""
    used = 0
    warm = state.get("warm", {"n": 0, "errors": 0, "positives": 0.0})
    n, error, base = known.n, known.error, known.base
    if n < WARM_ROWS or error is None:
        used = min(len(errors), WARM_ROWS - warm["n"])
        warm = {
            "n": warm["n"] + used,
            "errors": warm["errors"] + sum(errors[:used]),
            "positives": warm["positives"] + math.fsum(truths[:used]),
        }
        state = {**state, "warm": warm}
        if warm["n"] < WARM_ROWS:
            return state, used
        n, error = warm["n"], warm["errors"] / warm["n"]
        base = warm["positives"] / warm["n"]
    binary = labels.task == "binary"
    # Two detectors share the promise of rows between false alarms.
    c = settings.monitor.rows_between_false_alarms * (2.0 if binary else 1.0)
    p0 = reference_rate(round(error * n), n, tolerance=settings.monitor.tolerance)
    detector = EDetector.start(p0, c=c).as_dict() if p0 < 0.95 else None
    found = skill.SkillDetector(base=base, c=c).as_dict() if binary and base and base < 1.0 else None
    return {**state, "detector": detector, "skill": found}, used


def load(store: Store, tx: Connection, model: str, version: int) -> Json:
    """The state of this champion's detectors; a new champion starts afresh."""
    table = schema.monitor_state
    found: Json | None = tx.scalar(
        sa.select(table.c.state).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.name == STATE
        )
    )
    return found if found is not None and found["version"] == version else {"version": version}


def save(store: Store, tx: Connection, model: str, state: Json) -> None:
    store.upsert(
        tx, schema.monitor_state, {"workspace": store.workspace, "model": model, "name": STATE, "state": state}
    )


def _raise(
    store: Store, tx: Connection, model: str, version: int, rule: Json, settings: Settings, now: datetime
) -> None:
    severity = rule.pop("severity", "alarm")
    alarms.raise_alarm(
        store, tx, model=model, kind="performance", subject=SUBJECT, severity=severity,
        evidence={"version": version, **rule}, settings=as_dict(settings), now=now,
    )  # fmt: skip


# -- window by window ------------------------------------------------------------------------------------------------


def due_windows(store: Store, tx: Connection, *, model: str, settings: Settings, now: datetime) -> list[Row]:
    """Closed windows without a live metric whose labels have matured, in order of time."""
    if settings.label_delay is None:
        return []
    table, delay = schema.window, settings.label_delay
    rows = tx.execute(
        sa.select(table)
        .where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.closed_at.is_not(None),
            table.c.performance.is_(sa.null()), table.c.end_at > now - delay - WAIT - 2 * settings.monitor.window,
        )
        .order_by(table.c.start_at)
    ).all()  # fmt: skip
    return [row for row in rows if _mature(store, tx, row, delay, now)]


def judge_window(
    store: Store,
    tx: Connection,
    row: Row,
    *,
    version: int,
    settings: Settings,
    labels: Labels,
    reference: Sequence[Mapping[str, float]],
    now: datetime,
) -> None:
    """Give a matured window its metric with interval and judge its mean loss.

    reference: held-out loss per window ({"n", "mean"}), may be empty: then the first live windows are it.
    """
    found = _measure(store, tx, row, version, settings, labels)
    verdict = _judge_loss(store, tx, row.model, version, found, reference, settings, now)
    windows.update(store, tx, row, performance={**found, "verdict": verdict})


def revise_windows(
    store: Store, tx: Connection, *, model: str, settings: Settings, labels: Labels, times: Sequence[datetime]
) -> None:
    """Compute again, and mark as revised, the metric of windows with late labels; no verdict is taken back."""
    if not times:
        return
    table = schema.window
    rows = tx.execute(
        sa.select(table).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.performance.is_not(sa.null()),
            table.c.start_at <= max(times), table.c.end_at > min(times),
        )
    ).all()  # fmt: skip
    for row in rows:
        if row.performance and any(row.start_at <= at < row.end_at for at in times):
            found = _measure(store, tx, row, row.performance["version"], settings, labels)
            revised = {**found, "verdict": row.performance["verdict"], "revised": True}
            windows.update(store, tx, row, performance=revised)


def _mature(store: Store, tx: Connection, row: Row, delay: timedelta, now: datetime) -> bool:
    if now >= row.end_at + delay:
        return True
    table = schema.prediction
    within = sa.and_(
        table.c.workspace == store.workspace, table.c.endpoint == row.model, table.c.at >= row.start_at,
        table.c.at < row.end_at,
    )  # fmt: skip
    count = sa.select(sa.func.count()).select_from(table)
    old = int(tx.scalar(count.where(within, table.c.at <= now - delay)) or 0)
    return old >= MATURE_SHARE * max(1, int(tx.scalar(count.where(within)) or 0))


def _measure(store: Store, tx: Connection, row: Row, version: int, settings: Settings, labels: Labels) -> Json:
    table = schema.prediction
    found = tx.execute(
        sa.select(table.c.label, table.c.answers)
        .where(
            table.c.workspace == store.workspace, table.c.endpoint == row.model, table.c.at >= row.start_at,
            table.c.at < row.end_at, table.c.label_at.is_not(None),
        )
        .order_by(table.c.at, table.c.prediction)
    )  # fmt: skip
    pairs = []
    for label, answers in found:
        answer, y = answers.get(str(version)), truth(labels, label)
        if answer is not None and answer["status"] == "ok" and y is not None:
            pairs.append((answer["output"], label, y))
    return {"version": version, "of": row.rows, "revised": False, **metric(pairs, settings, labels)}


def metric(pairs: Sequence[tuple[Any, Any, float]], settings: Settings, labels: Labels) -> Json:
    """Metric and mean loss of labelled rows, with 95 % intervals; {"n": 0} without any. Pure."""
    if not pairs:
        return {"n": 0}
    name = primary_loss(settings)
    losses = np.array([row_loss(name, labels, label, output) for output, label, _ in pairs], dtype=np.float64)
    half = 1.96 * float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else None
    mean = float(losses.mean())
    found: Json = {
        "n": len(pairs), "loss": name, "mean_loss": mean, "loss_low": None if half is None else mean - half,
        "loss_high": None if half is None else mean + half,
    }  # fmt: skip
    if labels.task == "regression":
        return found
    wrong = sum(int(row_loss("zero_one", labels, label, output) or 0) for output, label, _ in pairs)
    low, high = wilson(wrong, len(pairs))
    found["error"] = {"value": wrong / len(pairs), "low": low, "high": high}
    positives = sum(y == 1.0 for _, _, y in pairs)
    if labels.task == "binary" and 2 <= positives <= len(pairs) - 2:
        area, low, high = auc_interval([int(y) for _, _, y in pairs], [float(output) for output, _, _ in pairs])
        found["auc"] = {"value": area, "low": low, "high": high}
    return found


def _judge_loss(
    store: Store, tx: Connection, model: str, version: int, found: Json, reference: Sequence[Mapping[str, float]],
    settings: Settings, now: datetime,
) -> Json | None:  # fmt: skip
    """The window's mean loss against reference windows. For probabilities it is a notice only: a day's Brier score
    follows the day's base rate, and the row-wise detectors judge the model itself."""
    if found["n"] < 30:
        return None
    state = load(store, tx, model, version)
    means = [w["mean"] for w in reference] if len(reference) >= MIN_WINDOWS else list(state.get("live_means", []))
    history = state.get("loss_p", [])
    verdict: LossVerdict | None = None
    days = settings.monitor.window / timedelta(days=1)
    if len(means) >= MIN_WINDOWS:
        f = tuned_f(means, window_days=days, budget=settings.monitor.budget)
        verdict = judge_loss_window(
            found["mean_loss"], means, f, history=history, window_days=days, budget=settings.monitor.budget
        )
        state = {**state, "loss_p": [*history, verdict.p][-2:]}
    if len(reference) < MIN_WINDOWS and len(means) < LIVE_WINDOWS and (verdict is None or verdict.state == "ok"):
        state = {**state, "live_means": [*means, found["mean_loss"]]}
    save(store, tx, model, state)
    if verdict is not None and verdict.state == "alarm":
        severity = "alarm" if settings.task == "regression" else "notice"
        rule = {"rule": "loss per window", "severity": severity, "at": clock.iso(now), **verdict.as_dict()}
        _raise(store, tx, model, version, rule, settings, now)
    return None if verdict is None else verdict.as_dict()


def tuned_f(means: Sequence[float], *, window_days: float, budget: float) -> float:
    """Smallest f (1.0, 1.1 … 10) whose replay over the reference, each window against the others, keeps the budget."""
    for step in range(91):
        f, fired = round(1.0 + 0.1 * step, 1), 0
        history: list[float | None] = []
        for i, mean in enumerate(means):
            others = [m for j, m in enumerate(means) if j != i]
            if len(others) < MIN_WINDOWS:
                return 1.0
            verdict = judge_loss_window(mean, others, f, history=history[-2:], window_days=window_days, budget=budget)
            history.append(verdict.p)
            fired += verdict.state == "alarm"
        if fired * 30.0 / (len(means) * window_days) <= budget:
            return f
    return 10.0
