"""Judges closed windows: data quality by hard limits first, then drift against the reference (METHODS 3b, 3c)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from fairway import clock
from fairway.contract.settings import Settings
from fairway.monitor import alarms, reference, windows
from fairway.monitor.resolved import as_dict
from fairway.stats.drift import Reference, expected_null_js, judge_column, ks_binned, psi, total_variation
from fairway.stats.profiles import profile_from_dict
from fairway.store.base import Row, Store

MIN_ROWS = 50  # a window with fewer is kept and not judged
UNSEEN_LIMIT = 0.05  # share of category values that the contract does not list
NULL_RISE = 0.10  # share of nulls above the highest of the reference
IMPORTANT = 0.05
CALM = 3  # windows within the reference after which a column's alarm closes

Json = dict[str, Any]


def judge_window(
    made: Mapping[str, Any],
    profile: Mapping[str, Any],
    *,
    start: datetime,
    rows: int,
    history: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> Json:
    """Judgement of one window: {"columns": {name: verdict and distances}, "quality": [...]}; pure.

    made: the reference. profile: the window's columns. history: judgements of the windows before, oldest first.
    """
    monitor = settings.monitor
    length = timedelta(seconds=made["window_s"])
    judged: dict[str, Json] = {}
    quality: list[Json] = []
    if rows < MIN_ROWS:
        return {"columns": {}, "quality": [], "reason": f"{rows} rows; at least {MIN_ROWS} are needed"}
    for name, column in made["columns"].items():
        found = profile_from_dict(profile[name])
        quality.extend(_quality(name, column, profile[name]))
        if column["reference"] is None:
            judged[name] = {"state": "refused", "reason": "no reference windows yet"}
            continue
        known, counts = Reference.from_dict(column["reference"]), found.vector()
        season = reference.season_of(start, length)
        if known.seasonal and str(season) not in known.totals:
            judged[name] = {"state": "refused", "reason": f"no reference for this weekday ({season})"}
            continue
        base = known.totals[str(season) if known.seasonal else ""]
        if not sum(base) or not counts.sum():
            judged[name] = {"state": "refused", "reason": "a side has no rows"}
            continue
        used = max(1, sum(1 for a, b in zip(base, counts, strict=True) if a or b))
        verdict = judge_column(
            known.distance(counts, season=season),
            [h.get("columns", {}).get(name, {}).get("g") for h in history],
            known.x,
            columns=len(made["columns"]),
            window_days=length / timedelta(days=1),
            budget=monitor.budget,
            f=known.f,
            js_alarm=monitor.js_alarm,
            js_notice=monitor.js_notice,
            null_js=expected_null_js(used, rows),
        )
        shown: dict[str, float | None] = {"tv": total_variation(counts, base), "psi": psi(counts, base)}
        if column["kind"] != "categorical":
            shown["ks"] = ks_binned(counts[:-1], base[:-1]) if counts[:-1].sum() and sum(base[:-1]) else None
        rank = verdict.x_now * column["importance"]
        judged[name] = {**verdict.as_dict(), "distances": shown, "rank": rank, "importance": column["importance"]}
    return {"columns": judged, "quality": quality}


def _quality(name: str, column: Mapping[str, Any], profile: Mapping[str, Any]) -> list[Json]:
    n, found = profile["n"], []
    if not n:
        return []
    nulls, usual = profile["null"] / n, column.get("null_share")
    if usual is not None and nulls > usual + NULL_RISE:
        found.append({"column": name, "rule": "nulls", "share": nulls, "limit": usual + NULL_RISE})
    unseen = profile.get("unseen", 0) / n
    if unseen > UNSEEN_LIMIT:
        found.append({"column": name, "rule": "unseen", "share": unseen, "limit": UNSEEN_LIMIT})
    if profile.get("nonfinite"):
        found.append({"column": name, "rule": "not finite", "share": profile["nonfinite"] / n, "limit": 0.0})
    return found


def close_window(store: Store, tx: Connection, row: Row, settings: Settings, now: datetime) -> Json:
    """Judge one window that is due, store the judgement, raise and close alarms; returns the judgement.

    Rows 3 and 7 of METHODS 9: a quality break marks the window and is a notice; drift alone is a notice to a person
    and trains nothing.
    """
    found = reference.installed(store, tx, row.model, row.contract)
    key = row.profile["reference"]
    if found is None or key not in found[1]:
        judgement: Json = {"columns": {}, "quality": [], "reason": "its reference is gone"}
        windows.update(store, tx, row, closed_at=now, judgement=judgement)
        return judgement
    made = found[1][key]
    past = windows.before(store, tx, row, limit=CALM - 1)
    if not windows.is_whole(row, past):
        judgement = {"columns": {}, "quality": [], "reason": "traffic began within this window"}
        windows.update(store, tx, row, closed_at=now, judgement=judgement)
        return judgement
    earlier = [w.judgement for w in past if w.judgement]
    judgement = judge_window(
        made, row.profile["columns"], start=row.start_at, rows=row.rows, history=earlier, settings=settings
    )
    windows.update(store, tx, row, closed_at=now, judgement=judgement)
    if made["live"] and row.rows >= MIN_ROWS:
        _grow(store, tx, row, key, made, settings)
    _alarm(store, tx, row, judgement, [*earlier, judgement], settings, now)
    return judgement


def _grow(store: Store, tx: Connection, row: Row, key: str, made: Mapping[str, Any], settings: Settings) -> None:
    """Without reference windows of training rows, the first 28 live ones are the reference."""
    seen = [*made.get("live_windows", []), {"start": clock.iso(row.start_at), "profile": row.profile["columns"]}]
    if len(seen) > reference.LIVE_WINDOWS:
        return
    counts = {name: [profile_from_dict(w["profile"][name]).vector().tolist() for w in seen] for name in made["columns"]}
    columns = {
        name: {
            **column,
            "null_share": max(w["profile"][name]["null"] / max(w["profile"][name]["n"], 1) for w in seen),
        }
        for name, column in made["columns"].items()
    }
    grown = reference.judged_columns(
        columns, counts, [clock.parse_iso(w["start"]) for w in seen], window=timedelta(seconds=made["window_s"]),
        budget=settings.monitor.budget, js_alarm=settings.monitor.js_alarm,
    )  # fmt: skip
    live = {**made, "columns": grown, "live_windows": seen, "windows": [w["start"] for w in seen]}
    reference.replace(store, tx, model=row.model, contract=row.contract, key=key, reference=live)


def _alarm(
    store: Store, tx: Connection, row: Row, judgement: Json, recent: Sequence[Json], settings: Settings, now: datetime
) -> None:
    resolved, span = as_dict(settings), {"start": clock.iso(row.start_at), "end": clock.iso(row.end_at)}
    ranked = sorted(judgement["columns"].items(), key=lambda item: -item[1].get("rank", 0.0))
    for name, verdict in ranked:
        if verdict["state"] in ("notice", "alarm"):
            alarms.raise_alarm(
                store, tx, model=row.model, kind="drift", subject=name, severity=verdict["state"],
                evidence={"window": span, "rows": row.rows, **verdict}, settings=resolved, now=now,
                action={"row": 7, "did": "notice only: inputs moved, whether the model suffers is told by labels"},
            )  # fmt: skip
        elif len(recent) >= CALM and all(_calm(j, name) for j in recent[-CALM:]):
            _close(store, tx, row.model, "drift", name, now)
    broken = {q["column"] for q in judgement["quality"]}
    for column in sorted(broken):
        evidence = {
            "window": span,
            "rows": row.rows,
            "found": [q for q in judgement["quality"] if q["column"] == column],
        }
        alarms.raise_alarm(
            store, tx, model=row.model, kind="quality", subject=column, severity="notice", evidence=evidence,
            settings=resolved, now=now, action={"row": 3, "did": "the window is marked as broken"},
        )  # fmt: skip
    for alarm in alarms.open_alarms(store, tx, model=row.model, kind="quality"):
        if alarm.subject not in broken and judgement["columns"]:
            alarms.close(store, tx, alarm.alarm, now=now, why="back within its limits")


def _calm(judgement: Json, column: str) -> bool:
    state: str | None = judgement["columns"].get(column, {}).get("state")
    return state == "ok"


def _close(store: Store, tx: Connection, model: str, kind: str, subject: str, now: datetime) -> None:
    found = alarms.open_alarm(store, tx, model=model, kind=kind, subject=subject)
    if found is not None:
        alarms.close(store, tx, found.alarm, now=now, why=f"{CALM} windows within the reference")
