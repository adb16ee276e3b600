"""Extreme requests through the real decoder and the packaged model, without a server."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairway import clock
from fairway.checks.answers import problem
from fairway.checks.extreme import Extreme
from fairway.checks.result import CheckResult, failed, passed
from fairway.checks.subject import Subject, shown
from fairway.contract.request import Decoded
from fairway.errors import RequestError

SLOW = 5  # METHODS 6f: no answer takes longer than 5 x the p99 budget
BATCH = 200
ALONE_S = 0.05


Decode = Callable[[bytes], Decoded]


def extreme_checks(
    subject: Subject, decode: Decode, extremes: Sequence[Extreme], *, now_us: int, classes: int
) -> list[CheckResult]:
    """One "extreme-KIND" per kind that is present: each request is answered or refused as its kind says."""
    kinds = list(dict.fromkeys(extreme.kind for extreme in extremes))
    return [
        extreme_check(subject, decode, [e for e in extremes if e.kind == kind], kind, now_us=now_us, classes=classes)
        for kind in kinds
    ]


def extreme_check(
    subject: Subject, decode: Decode, extremes: Sequence[Extreme], kind: str, *, now_us: int, classes: int
) -> CheckResult:
    name = f"extreme-{kind}"
    wrong: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    accepted: list[tuple[Extreme, Decoded]] = []
    for extreme in extremes:
        try:
            decoded = decode(extreme.body)
        except RequestError as error:
            complaint = refusal_problem(extreme, error.status, error.field)
            refused[error.code] += 1
            if complaint:
                wrong.append(_finding(extreme, complaint, answer=f"{error.status} {error.code}: {error}"))
            continue
        except Exception as error:  # a decoder must refuse, whatever comes
            wrong.append(_finding(extreme, f"the decoder broke: {type(error).__name__}: {error}"))
            continue
        if extreme.expected == "reject":
            wrong.append(_finding(extreme, "was accepted; it must be refused"))
        elif decoded.n != extreme.rows:
            wrong.append(_finding(extreme, f"was read as {decoded.n} rows, it has {extreme.rows}"))
        else:
            accepted.append((extreme, decoded))
    for start in range(0, len(accepted), BATCH):
        wrong += _predict(subject, accepted[start : start + BATCH], now_us=now_us, classes=classes)
    evidence = {"requests": len(extremes), "answered": len(accepted), "refused": dict(refused)}
    if wrong:
        first = wrong[0]
        where = f'column "{first["column"]}", ' if first["column"] else ""
        say = f"{where}{first['input']} ({first['body']}): {first['problem']}"
        return failed(
            name, say + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""), wrong=wrong[:20], **evidence
        )
    say = f"{len(extremes)} requests: {len(accepted)} answered, {sum(refused.values())} refused by name"
    return passed(name, say, **evidence)


def refusal_problem(extreme: Extreme, status: int, field: str | None) -> str | None:
    """What is wrong with a refusal, or None: it must be a 4xx, expected, and name the column."""
    if not 400 <= status < 500:
        return f"was refused with status {status}; a caller's mistake is a 4xx"
    if extreme.expected == "ok":
        return "was refused; it must be answered"
    if extreme.column is not None and extreme.column not in (field or ""):
        return f"was refused without naming the column (field {field!r})"
    return None


def _finding(extreme: Extreme, complaint: str, **more: Any) -> dict[str, Any]:
    return {"column": extreme.column, "input": extreme.name, "body": extreme.shown(), "problem": complaint, **more}


def _predict(
    subject: Subject, accepted: Sequence[tuple[Extreme, Decoded]], *, now_us: int, classes: int
) -> list[dict[str, Any]]:
    """One by one, as requests come, while that is quick; then all at once, and one by one again where that fails."""
    wrong: list[dict[str, Any]] = []
    began, together = clock.elapsed(), None
    for place, (extreme, decoded) in enumerate(accepted):
        if place and together is None and clock.elapsed() - began > ALONE_S:
            together = _answers(subject, [d for _, d in accepted], now_us=now_us, classes=classes)
            if together is None:
                break
        complaint = _answers(subject, [decoded], now_us=now_us, classes=classes)
        if complaint is not None:
            wrong.append(_finding(extreme, complaint))
    if together is None:
        return wrong
    return wrong or [_finding(accepted[0][0], f"only together with {len(accepted) - 1} others: {together}")]


def _answers(subject: Subject, requests: Sequence[Decoded], *, now_us: int, classes: int) -> str | None:
    """What is wrong with the answers, or None."""
    columns: dict[str, list[Any]] = {name: [] for name in requests[0].columns}
    for request in requests:
        for name, values in request.columns.items():
            columns[name].extend(values)
    ats = [now_us if at is None else at for request in requests for at in request.ats]
    began = clock.elapsed()
    try:
        outputs = np.asarray(subject.predict_wire(columns, ats), dtype=np.float64)
    except Exception as error:  # whatever model.py raises is this check's finding
        return f"the model fails: {type(error).__name__}: {error}"
    took, limit = clock.elapsed() - began, SLOW * subject.settings.endpoint.p99.total_seconds()
    wrong = problem(outputs, n=len(ats), task=subject.settings.task, classes=classes)
    if wrong is not None:
        row, what = wrong
        value = outputs[row].tolist() if outputs.ndim and row < len(outputs) else None
        return f"the answer {what} ({shown(value)})"
    if took > limit * len(ats):
        return f"the answer took {took:.2f} s; {SLOW} times the p99 budget is {limit:.2f} s"
    return None
