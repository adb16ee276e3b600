"""What an alarm and a decision rest on, in words with units: the same in the terminal and on the pages. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairway.web.words import count, evidence, local, number, plain

Json = Mapping[str, Any]
Facts = list[tuple[str, str]]

TESTS = {
    "srm": "split of units",
    "errors": "failed predictions",
    "slow": "slow answers",
    "score": "mean prediction",
    "primary": "primary loss",
}


# -- looks at a rollout ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Test:
    """One test of a look as a person reads it. said: fired, passed or nothing."""

    name: str
    evidence: str
    found: str
    interval: str
    said: str


def tests(checks: Sequence[Json]) -> list[Test]:
    """The tests of one look; plain counts, which decide nothing by themselves, are left out."""
    found = []
    for check in checks:
        if "log_e" not in check and "effect" not in check:
            continue
        low, high = check.get("low"), check.get("high")
        found.append(
            Test(
                name=TESTS.get(str(check["name"]), str(check["name"])),
                evidence=evidence(check) if "log_e" in check else "-",
                found=_found(check),
                interval=f"{low:.3g} to {high:.3g}" if low is not None and high is not None else "-",
                said="fired" if check.get("fired") else "passed" if check.get("passed") else "",
            )
        )
    return found


def _found(check: Json) -> str:
    if check["name"] == "srm" and check.get("units"):
        units = check["units"].values()
        challenger, both = sum(pair[0] for pair in units), sum(sum(pair) for pair in units)
        split = "not as the shares say" if check.get("fired") else "as the shares say"
        return f"{challenger:,} of {both:,} units went to the challenger, {split}"
    if "rows0" in check:
        return f"{check['n1']:,} of {check['rows1']:,} in the challenger, {check['n0']:,} of {check['rows0']:,} before"
    effect, margin = check.get("effect"), check.get("margin")
    if effect is None:
        return (
            str(check.get("text") or "") if "n1" in check else "no labelled prediction yet" if "passed" in check else ""
        )
    if "passed" in check:
        return f"saves {effect:.2g} a row on {check['n']:,} labelled predictions; {margin:g} may be lost"
    return f"moved by {effect:+.2g}" + (f"; asks beyond {margin:.2g} either way" if margin is not None else "")


def again(stored: Json, computed: Json) -> list[tuple[str, str, str, bool]]:
    """(what, stored, computed, equal) of a look: its decision, then the evidence of each test."""
    rows = [("decision", f"{stored['decision']} ({stored['rule']})", f"{computed['decision']} ({computed['rule']})")]
    other = {check["name"]: check for check in computed["checks"]}
    for check in stored["checks"]:
        name, new = check["name"], other.get(check["name"], {})
        if "log_e" in check:
            rows.append((f"{TESTS.get(name, name)}: ln evidence", _exact(check["log_e"]), _exact(new.get("log_e"))))
        if "effect" in check:
            rows.append((f"{TESTS.get(name, name)}: effect", _exact(check["effect"]), _exact(new.get("effect"))))
    return [(what, one, two, one == two) for what, one, two in rows]


def _exact(value: Any) -> str:
    return "unknown" if value is None else f"{value:.12g}"


# -- alarms ----------------------------------------------------------------------------------------------------------


def alarm_facts(alarm: Json) -> Facts:
    """What an alarm found, as (what, in words); of a kind that is not known, its evidence as it is stored."""
    found = alarm["evidence"]
    if alarm["kind"] == "drift" and "x_now" in found:
        return _drift(found, (alarm.get("settings") or {}).get("monitor") or {})
    if alarm["kind"] == "quality" and "found" in found:
        return [("window", _window(found)), *((str(q["rule"]), _quality(q)) for q in found["found"])]
    if alarm["kind"] == "performance" and "rule" in found:
        return _performance(found)
    if alarm["kind"] == "equality" and "share" in found:
        return _equality(found)
    if alarm["kind"] == "guardrail" and "why" in found:
        look = f", at look {found['look']}" if found.get("look") else ""
        return [("rollout", f"{found['rollout']}, in the guard time of @{found['version']}{look}"),
                ("why", str(found["why"]))]  # fmt: skip
    return [(str(name).replace("_", " "), plain(value)) for name, value in found.items()]


def done(action: Json) -> str:
    """What was done about an alarm: "retrain, job-3"."""
    return ", ".join(str(action[name]) for name in ("did", "job", "review") if action.get(name)) or plain(action)


def _window(found: Json) -> str:
    span = found.get("window") or {}
    rows = count(int(found["rows"]), "row")
    return f"{local(span['start'])} to {local(span['end'])}, {rows}" if span else rows


def _drift(found: Json, monitor: Json) -> Facts:
    bars = [f"{name} from {monitor[key]:g}" for name, key in (("notice", "js_notice"), ("alarm", "js_alarm"))
            if monitor.get(key) is not None]  # fmt: skip
    moved = f"Jensen-Shannon distance {number(found['x_now'])}; 0 is the same, 1 has nothing in common"
    facts = [("window", _window(found)), ("moved by", moved + (f"; {', '.join(bars)}" if bars else ""))]
    against = f"{found['reason']}, against {count(int(found['windows']), 'reference window')}"
    facts.append(("how unusual", against))
    if found.get("now"):
        facts.append(("", f"{_one_in(found['p_ln'])} lies so far off without a change; the limit is "
                          f"{_one_in(found['now_limit'])}"))  # fmt: skip
    elif found.get("lasting"):
        facts.append(("", f"without a change each of the two is as rare as {_one_in(found['lasting_limit'])}; the "
                          f"newest as {_one_in(found['g'])}"))  # fmt: skip
    shown = found.get("distances") or {}
    names = {"tv": "of the rows in other bins", "psi": "PSI", "ks": "Kolmogorov-Smirnov"}
    other = [f"{value * 100:.1f} % {names[key]}" if key == "tv" else f"{names[key]} {number(value)}"
             for key, value in shown.items() if value is not None]  # fmt: skip
    if other:
        facts.append(("also", ", ".join(other)))
    if found.get("importance") is not None:
        facts.append(("importance", f"{number(found['importance'], 2)} of 1 to the model"))
    return facts


def _equality(found: Json) -> Facts:
    facts = [("window", _window(found))]
    facts.append(("found", f"{found['equal']:,} of {found['n']:,} predictions are what training gives too"))
    facts.append(("differ", ", ".join(f"{name} {n:,}" for name, n in sorted(found["columns"].items()))))
    for row in found["first"]:
        told = f"{row['column']} of {row['prediction']} at {local(row['at'])}, @{row['version']}"
        facts.append(("", f"{told}: served {plain(row['served'])}, recomputed {plain(row['recomputed'])}"))
    return facts


def _one_in(p: float | None) -> str:
    """A probability as a person weighs it: "1 window in 142".

    >>> _one_in(0.007), _one_in(1e-9), _one_in(None)
    ('1 window in 143', '1 window in more than a million', 'unknown')
    """
    if p is None:
        return "unknown"
    return "1 window in more than a million" if p < 1e-6 else f"1 window in {1 / p:,.0f}"


def _quality(found: Json) -> str:
    share, limit = f"{found['share'] * 100:.1f} %", f"at most {found['limit'] * 100:.1f} % is expected"
    what = {
        "nulls": "is null",
        "unseen": "is a category that the contract does not list",
        "not finite": "is not finite",
    }
    return f"{share} {what.get(str(found['rule']), '')}; {limit}"


def _performance(found: Json) -> Facts:
    facts = [("version", f"@{found['version']}")]
    rows = f"{count(int(found['rows']), 'labelled row')} judged so far" if "rows" in found else ""
    if found["rule"] == "error rate":
        facts.append(("found", f"more wrong answers than the {found['accepted'] * 100:.1f} % its evaluation allows"))
        facts.append(("surety", f"without a change this comes after {found['level']:,.0f} rows on average; {rows}"))
    elif found["rule"] == "no better than the base rate":
        facts.append(("found", f"its answers fit the labels no better than always saying {found['base'] * 100:.1f} %"))
        facts.append(("surety", f"evidence {found['level']:,.0f}; while it knows anything, that many rows pass on "
                                f"average before a false alarm; {rows}"))  # fmt: skip
    elif found["rule"] == "loss per window":
        facts.append(("found", f"mean loss {plain(found['x_now'])} in the window: {found['reason']}, against "
                               f"{count(int(found['windows']), 'reference window')}"))  # fmt: skip
        facts.append(("surety", f"{_one_in(found.get('p'))} has so high a loss without a change"))
    else:
        facts += [(str(name).replace("_", " "), plain(value)) for name, value in found.items() if name != "version"]
    return facts
