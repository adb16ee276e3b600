"""Figures, times and states in words: the same in the terminal and on the pages. Pure and light."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from fairway import clock

Json = dict[str, Any]

VERDICTS = {"pass": "may be deployed", "fail": "may not be deployed", "ask": "waits for a person"}
METRICS = {"auc": "AUC", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "f1": "F1", "brier": "Brier"}
SUMS = {
    "requests": "requests",
    "errors": "failed",
    "slow": "slower than the champion's p99",
    "score": "mean prediction",
    "primary": "primary loss",
    "primary_paired": "primary: loss saved per row",
    "assigned": "units assigned",
}
_EVENTS = ("errors", "slow")
_COUNTS = ("requests", "assigned")


def number(value: float | None, places: int = 3) -> str:
    """A figure, or "unknown": never a made-up zero."""
    return "unknown" if value is None else f"{value:.{places}f}"


def count(value: int, one: str, many: str | None = None) -> str:
    """
    >>> count(1, "row"), count(7043, "row"), count(2, "entry", "entries")
    ('1 row', '7,043 rows', '2 entries')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def short(name: str) -> str:
    """An id as it is shown: datasets by their first six digits."""
    return name[:11] if name.startswith("data-") else name


def person(name: str | None) -> str:
    """Who, in a list: an address without its host.

    >>> person("ana@example.com"), person("fairway"), person(None)
    ('ana', 'fairway', '-')
    """
    return (name or "-").partition("@")[0] or "-"


def length(span: timedelta) -> str:
    """A duration in one unit, as a person says it.

    >>> length(timedelta(seconds=42)), length(timedelta(hours=30)), length(timedelta(days=3))
    ('42 s', '30 h', '3 d')
    """
    seconds = max(span.total_seconds(), 0)
    if seconds and seconds % 86_400 == 0:
        return f"{seconds / 86_400:.0f} d"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def ago(since: str | datetime, now: str | datetime) -> str:
    """
    >>> ago("2026-03-01T10:00:00Z", "2026-03-01T12:10:00Z")
    '2 h'
    """
    start, end = (clock.parse_iso(at) if isinstance(at, str) else at for at in (since, now))
    return length(end - start)


def local(at: str | None) -> str:
    """A time as this machine's clock shows it; JSON keeps UTC."""
    return "-" if at is None else clock.parse_iso(at).astimezone().strftime("%d %b %Y %H:%M")


def plain(value: Any) -> str:
    """One JSON value in a few words.

    >>> plain(None), plain(0.123456), plain([1, 2]), plain(True)
    ('unknown', '0.1235', '1, 2', 'yes')
    """
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        cut = value[:8]
        return ", ".join(plain(item) for item in cut) + (f" ... ({len(value):,})" if len(value) > 8 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{str(k).replace('_', ' ')} {plain(v)}" for k, v in value.items())
    return str(value)


def detail(found: Mapping[str, Any]) -> str:
    """An audit entry's detail: hashes are cut, and what was not given is left out.

    >>> detail({"why": None, "epoch": 8, "shares": {"2": 1.0}, "artifact": "ab" * 32})
    'epoch 8, shares 100 % @2, artifact abababababab'
    """
    shown = {}
    for name, value in found.items():
        if value is None or value in ({}, []):
            continue
        if name == "shares" and isinstance(value, Mapping):
            value = shares({"shares": value, "shadows": []})
        shown[name] = value[:12] if isinstance(value, str) and len(value) == 64 else value
    return plain(shown)


# -- models ----------------------------------------------------------------------------------------------------------


def traffic(line: Json) -> str:
    n = line["predictions_24h"]
    return f"{n / 1000:.1f}k/d" if n >= 10_000 else f"{n:,}/d"


def live_metric(line: Json) -> str:
    """ "AUC 0.69 (0.58-0.79)", or why it is not known."""
    performance = line["metric"]
    if performance:
        return performance_text(performance)
    if not line["predictions"]:
        return "unknown: no predictions yet"
    return "unknown: " + (f"no {line['missing'][0]}" if line["missing"] else "no matured labels yet")


def performance_text(performance: Mapping[str, Any]) -> str:
    """One judged window in a few words; a missing figure is said to be missing."""
    name, value, low, high = headline(performance)
    if value is None:
        return f"unknown: {count(int(performance.get('n') or 0), 'labelled row')}"
    text = f"{name} {number(value)}"
    return text if low is None or high is None else f"{text} ({number(low)}-{number(high)})"


def headline(performance: Mapping[str, Any]) -> tuple[str, float | None, float | None, float | None]:
    """(name, value, low, high) of the one figure to show of a window: AUC, else the share of errors, else the loss."""
    for key, name in (("auc", "AUC"), ("error", "error")):
        found = performance.get(key)
        if isinstance(found, Mapping):
            return name, found.get("value"), found.get("low"), found.get("high")
    name = str(performance.get("loss") or "loss").replace("_", " ")
    return name, performance.get("mean_loss"), performance.get("loss_low"), performance.get("loss_high")


def interval(value: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The two ends of a 95 % interval, however it is written."""
    both = value.get("interval")
    if isinstance(both, Sequence) and len(both) == 2:
        return both[0], both[1]
    return value.get("low"), value.get("high")


def shares(end: Json) -> str:
    """ "90 % @3, 10 % @4; in shadow @5" """
    text = ", ".join(f"{share * 100:g} % @{version}" for version, share in end["shares"].items() if share)
    shadows = [str(version) for version in end["shadows"]]
    return text + (f"; in shadow @{', @'.join(shadows)}" if shadows else "")


def estimates(metrics: Any) -> list[tuple[str, float, float | None, float | None]]:
    """(name, value, low, high) of each figure in a version's metrics; those without a value are left out."""
    found: list[tuple[str, float, float | None, float | None]] = []
    inner = metrics.get("metrics", metrics) if isinstance(metrics, Mapping) else {}
    for name, value in (inner or {}).items():
        figure = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(figure, int | float) and not isinstance(figure, bool):
            low, high = interval(value) if isinstance(value, Mapping) else (None, None)
            found.append((metric_name(name), float(figure), low, high))
    return found


def metric_name(name: str) -> str:
    return METRICS.get(name, name.replace("_", " "))


def judged(judgement: Mapping[str, Any]) -> str:
    """A closed window's inputs in a few words: what is broken, which columns moved, or that none did."""
    broken = [f"{q['column']}: {q['rule']}" for q in judgement.get("quality", [])]
    columns = judgement.get("columns", {})
    moved = [f"{name} {c['state']}" for name, c in columns.items() if c.get("state") in ("alarm", "notice")]
    said = broken + moved
    if not said:
        return str(judgement.get("reason") or ("as before" if columns else "not judged"))
    return ", ".join(said[:4]) + (f" and {len(said) - 4} more" if len(said) > 4 else "")


def equality(found: Mapping[str, Any] | None) -> str:
    """How many of a window's recomputed predictions were equal; "-" where none was recomputed, or why not."""
    if not found or not found["n"]:
        return str((found or {}).get("reason") or "-")
    return f"{found['equal']:,} of {found['n']:,} equal"


# -- rollouts --------------------------------------------------------------------------------------------------------


def steps(found: Json) -> list[Json]:
    """The plan's steps as {text, state}: done, here, or "-" for what is still to come."""
    plan = found["plan"] if isinstance(found["plan"], Mapping) else {}
    result = []
    for place, step in enumerate(plan.get("steps") or []):
        over = found["phase"] in ("promoted", "guarding") or place < found["step"]
        here = place == found["step"] and not found["ended_at"]
        result.append({"text": step_text(step), "state": "done" if over else "here" if here else "-"})
    return result


def step_text(step: Any) -> str:
    """ "shadow 1 d", "canary 10 %", "champion" """
    if not isinstance(step, Mapping):
        return str(step)
    kind, share, time_s = str(step.get("kind") or "step"), step.get("share"), step.get("time_s")
    if kind == "shadow":
        return f"shadow {length(timedelta(seconds=time_s))}" if time_s else "shadow"
    return kind if kind == "champion" or not share else f"canary {share * 100:g} %"


def sums_rows(totals: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, champion's, challenger's) per metric, in the order of interest; paired sums stand in the last column."""
    order = [name for name in SUMS if name in totals] + sorted(name for name in totals if name not in SUMS)
    return [(SUMS.get(name, name), *_arms(name, totals[name])) for name in order]


def alone(name: str) -> str:
    """A sum's name where no champion stands beside it: a first version is held against its budget."""
    return "slower than the budget" if name == SUMS["slow"] else name


def _arms(name: str, arms: Mapping[str, Any]) -> tuple[str, str]:
    def cell(arm: str) -> str:
        entry = arms.get(arm)
        if entry is None:
            return ""
        if name in _EVENTS:
            return f"{entry['sum']:,.0f} of {entry['n']:,}"
        if name in _COUNTS:
            return f"{entry['n']:,}"
        return f"{entry['sum'] / entry['n']:.4f} (n {entry['n']:,})" if entry["n"] else ""

    both = cell("paired")
    return cell("champion"), cell("challenger") or (f"both: {both}" if both else "")


def evidence(check: Mapping[str, Any]) -> str:
    """An e-value as a person reads it: "107, acts at 40"."""
    log_e, bar = check.get("log_e"), check.get("bar")
    if log_e is None:
        return "unknown"
    value = math.exp(min(float(log_e), 60.0))
    text = "over a million" if value >= 1e6 else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return text if bar is None else f"{text}, acts at {math.exp(float(bar)):,.0f}"
