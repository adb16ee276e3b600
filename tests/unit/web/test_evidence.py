"""Alarms and decisions in words: figures keep their meaning and unit, and what is not known is no error."""

from typing import Any

import pytest

from fairway.web import evidence

DRIFT = {
    "window": {"start": "2014-05-17T00:00:00Z", "end": "2014-05-18T00:00:00Z"}, "rows": 435, "state": "notice",
    "reason": "unusual in 2 of 3 windows", "x_now": 0.0504, "windows": 56, "p_ln": 0.007, "p_23": 0.0005, "g": 0.002,
    "now": False, "lasting": True, "now_limit": 0.0006, "lasting_limit": 0.017, "importance": 0.366,
    "distances": {"tv": 0.0297, "psi": 0.0143, "ks": None},
}  # fmt: skip
SETTINGS = {"monitor": {"js_alarm": 0.1, "js_notice": 0.05}}

FOUND: list[tuple[str, dict[str, Any], list[str]]] = [
    ("drift", DRIFT, ["435 rows", "notice from 0.05, alarm from 0.1", "1 window in 500", "3.0 % of the rows"]),
    ("drift", {**DRIFT, "now": True}, ["1 window in 143 lies so far off", "the limit is 1 window in 1,667"]),
    ("drift", {"js": 0.07}, ["0.07"]),
    ("quality", {"rows": 90, "found": [{"column": "a", "rule": "nulls", "share": 0.31, "limit": 0.1}]},
     ["90 rows", "31.0 % is null; at most 10.0 % is expected"]),
    ("performance", {"version": 2, "rule": "error rate", "accepted": 0.126, "level": 2e5, "rows": 3429},
     ["@2", "more wrong answers than the 12.6 %", "200,000 rows", "3,429 labelled rows"]),
    ("performance", {"version": 2, "rule": "no better than the base rate", "base": 0.11, "level": 2e5, "rows": 900},
     ["always saying 11.0 %"]),
    ("performance", {"version": 1, "rule": "loss per window", "x_now": 0.186, "reason": "unusual now", "windows": 28,
                     "p": 1e-9}, ["mean loss 0.186", "28 reference windows", "more than a million"]),
    ("guardrail", {"rollout": "rollout-2", "version": 3, "why": "9 of 200 failed", "look": 7},
     ["rollout-2, in the guard time of @3, at look 7", "9 of 200 failed"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "found", "said"), FOUND)
def test_alarms_speak_in_words(kind: str, found: dict[str, Any], said: list[str]) -> None:
    facts = evidence.alarm_facts({"kind": kind, "evidence": found, "settings": SETTINGS})
    text = "\n".join(f"{name}: {what}" for name, what in facts)
    assert not [part for part in said if part not in text], text


def test_what_was_done_is_one_line() -> None:
    assert evidence.done({"row": 4, "did": "retrain", "job": "job-3"}) == "retrain, job-3"


CHECKS: list[dict[str, Any]] = [
    {"name": "srm", "log_e": -0.5, "bar": 6.9078, "fired": False, "units": {"4": [0, 44], "5": [53, 462]}},
    {"name": "errors", "log_e": 3.5, "bar": 2.9957, "fired": True, "n1": 9, "n0": 2, "rows1": 816, "rows0": 1308,
     "low": 1.2, "high": None, "text": "failed predictions: …"},
    {"name": "score", "fired": False, "n": 0, "effect": None, "low": None, "high": None, "margin": 0.014, "text": "…"},
    {"name": "primary", "fired": False, "passed": True, "log_e": 156.0, "bar": 2.9957, "n": 1365, "effect": 0.0012,
     "low": -0.0005, "high": 0.0029, "margin": 0.01, "text": "…"},
    {"name": "requests", "fired": False, "n_champion": 1308},
]  # fmt: skip


def test_a_look_has_its_tests_and_no_bare_counts() -> None:
    srm, errors, score, primary = evidence.tests(CHECKS)
    assert srm.found == "53 of 559 units went to the challenger, as the shares say" and srm.said == ""
    assert (errors.name, errors.said, errors.evidence) == ("failed predictions", "fired", "33, acts at 20")
    assert errors.found == "9 of 816 in the challenger, 2 of 1,308 before"
    assert score.found == "" and score.interval == "-"
    assert primary.said == "passed" and primary.interval == "-0.0005 to 0.0029"
    assert primary.found == "saves 0.0012 a row on 1,365 labelled predictions; 0.01 may be lost"


def test_a_look_decided_again_shows_what_differs() -> None:
    stored = {"decision": "promote", "rule": "primary", "checks": CHECKS}
    assert all(equal for *_, equal in evidence.again(stored, stored))
    other = [{**CHECKS[0], "log_e": -0.4}, *CHECKS[1:]]
    differs = [row for row in evidence.again(stored, {**stored, "checks": other}) if not row[3]]
    assert differs == [("split of units: ln evidence", "-0.5", "-0.4", False)]
