"""The packaged model against itself: reloaded, in another runtime, in another order, trained again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from fairway import clock
from fairway.checks.result import NOT_REAL, CheckResult, failed, passed, skipped
from fairway.checks.subject import Events, Material, Outputs, Subject, shown, some, who

EXACT = 1e-9  # package and runtime, of the output's size
STEADY = 1e-6  # METHODS 6e
ALONE = 16
TRAIN_ROWS = 1500
CALLS = 100


def gap(first: Outputs, second: Outputs) -> Outputs:
    """Per row: the largest difference, relative above 1; NaN in both is no difference, in one it is infinite."""
    if first.shape != second.shape:
        return np.full(max(len(first), len(second), 1), np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(first - second) / np.maximum(1.0, np.maximum(np.abs(first), np.abs(second)))
    apart = np.where(first == second, 0.0, np.where(np.isnan(first) & np.isnan(second), 0.0, apart))
    apart = np.nan_to_num(apart, nan=np.inf)
    return apart if apart.ndim == 1 else apart.max(axis=1)


def _value(outputs: Outputs, row: int) -> Any:
    return shown(float(outputs[row])) if outputs.ndim == 1 else [shown(float(x)) for x in outputs[row]]


def _differs(
    name: str, subject: Subject, rows: pl.DataFrame, first: Outputs, second: Outputs, limit: float, say: str
) -> CheckResult | None:
    if first.shape != second.shape:
        return failed(name, f"{say}: {second.shape} outputs instead of {first.shape}", rows=rows.height)
    apart = gap(first, second)
    worst = int(apart.argmax())
    if apart[worst] <= limit:
        return None
    row = {key: shown(value) for key, value in rows.row(worst, named=True).items()}
    text = f"{say}: {who(subject.contract, row)} gets {_text(second, worst)} instead of {_text(first, worst)}"
    many = f" ({int((apart > limit).sum()):,} of {rows.height:,} rows differ)" if rows.height > 1 else ""
    return failed(
        name,
        text + many,
        row=row,
        wanted=_value(first, worst),
        got=_value(second, worst),
        largest=shown(float(apart[worst])),
        rows_differ=int((apart > limit).sum()),
        rows=rows.height,
    )


def _text(outputs: Outputs, row: int) -> str:
    return f"{outputs[row]:.9g}" if outputs.ndim == 1 else "[" + ", ".join(f"{x:.9g}" for x in outputs[row]) + "]"


def package_reload(subject: Subject, material: Material) -> CheckResult:
    """The packaged model, loaded in this clean process, must answer as the trained object did in memory."""
    name = "package-reload"
    got = subject.predict(material.heldout, material.events)
    say = "the packaged model answers otherwise than the trained one"
    found = _differs(name, subject, material.heldout, material.python_outputs, got, EXACT, say)
    if found is not None:
        return found
    largest = float(gap(material.python_outputs, got).max())
    return passed(name, f"equal to {largest:.0e} on {len(got):,} held-out rows", largest=largest, rows=len(got))


def native_runtime(subject: Subject, material: Material) -> CheckResult:
    """What serves must be proven equal to the Python object on held-out and extreme rows, split points among them.

    The proof on extreme rows is made at packaging, where the Python object is, and recorded in the manifest; here it is
    read, and the held-out rows are compared again with what the object answered.
    """
    name = "native-runtime"
    runtime = subject.runtime
    kind, tried = str(runtime.get("kind")), list(runtime.get("candidates", ()))
    proof = next((c for c in tried if c.get("chosen") and c.get("kind") == kind), None)
    if kind not in ("python", "project") and (proof is None or not float(proof.get("max_diff", np.inf)) <= EXACT):
        return failed(
            name, f"{kind} serves, and no proof is recorded that it equals the Python object", runtime=runtime
        )
    got = subject.predict(material.heldout, material.events)
    say = f"{kind} answers otherwise than the Python object did"
    found = _differs(name, subject, material.heldout, material.python_outputs, got, EXACT, say)
    if found is not None:
        return found
    why = runtime.get("reason") or "the Python object itself serves"
    return passed(name, f"{kind}: {why}", runtime=runtime, rows=len(got))


def determinism_predict(subject: Subject, material: Material) -> CheckResult:
    """A row's answer may not depend on its neighbours, their order, or on what was asked before."""
    name = "determinism-predict"
    rng = np.random.default_rng(material.seed)
    rows = some(material.heldout, 500, rng)
    whole = subject.predict(rows, material.events)
    order = rng.permutation(rows.height)
    trials = {
        "a second time": (np.arange(rows.height), rows),
        "in another order": (order, rows[order]),
        "twice in one batch": (np.repeat(np.arange(min(50, rows.height)), 2),
                               rows[np.repeat(np.arange(min(50, rows.height)), 2)]),
    }  # fmt: skip
    for i in rng.choice(rows.height, min(ALONE, rows.height), replace=False):
        trials[f"alone (row {int(i)})"] = (np.array([i]), rows[[int(i)]])
    for how, (picked, part) in trials.items():
        got = subject.predict(part, material.events)
        found = _differs(name, subject, part, whole[picked], got, STEADY, f"another answer {how.split(' (')[0]}")
        if found is not None:
            return found
    return passed(
        name, f"{rows.height:,} rows: the same twice, alone, in a batch and in another order", rows=rows.height
    )


def determinism_train(subject: Subject, material: Material, *, target: str) -> CheckResult:
    """Training twice under the seed must give the same model, or a version can never be reproduced."""
    name = "determinism-train"
    rows = some(material.train, TRAIN_ROWS, np.random.default_rng(material.seed))
    X = subject.features(subject.look_up(rows.drop(target), material.events))
    first, second = subject.train(X, rows[target])(X), subject.train(X, rows[target])(X)
    found = _differs(name, subject, rows.drop(target), first, second, STEADY,
                     "trained twice under one seed on the same rows, the model answers otherwise")  # fmt: skip
    return found or passed(name, f"trained twice on {rows.height:,} rows: equal predictions", rows=rows.height)


def column_order(subject: Subject, material: Material) -> CheckResult:
    """The order of a request's columns says nothing, so it may change nothing."""
    name = "column-order"
    rows = some(material.heldout, 300, np.random.default_rng(material.seed))
    wanted = subject.predict(rows, material.events)
    got = subject.predict(rows.select(reversed(rows.columns)), material.events)
    found = _differs(name, subject, rows, wanted, got, EXACT, "another answer when the columns come in another order")
    return found or passed(name, f"{rows.height:,} rows: the same with the columns reversed", rows=rows.height)


def feature_schema(subject: Subject, material: Material) -> CheckResult:
    """Features at serving must have the names, order and types that the model was trained on."""
    name = "feature-schema"
    rows = material.heldout[:200]
    made = subject.features(subject.look_up(rows, material.events))
    got = [(c, str(kind)) for c, kind in made.schema.items()]
    wanted = list(subject.feature_columns)
    if [c for c, _ in got] != [c for c, _ in wanted]:
        place = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a[0] != b[0]), min(len(got), len(wanted))
        )
        first = got[place][0] if place < len(got) else "nothing"
        other = wanted[place][0] if place < len(wanted) else "nothing"
        say = f"feature {place + 1} is {first!r} now and was {other!r} in training: columns are swapped, gone or new"
        return failed(name, say, now=[c for c, _ in got], training=[c for c, _ in wanted])
    numbers = ("Int", "UInt", "Float", "Boolean", "Null")  # the loader casts one to the other
    changed = [
        (a, was, now)
        for (a, now), (_, was) in zip(got, wanted, strict=True)
        if was != now and not (was.startswith(numbers) and now.startswith(numbers))
    ]
    if changed:
        column, was, now = changed[0]
        return failed(
            name, f"feature {column!r} is {now} now and was {was} in training", changed=list(map(list, changed))
        )
    return passed(name, f"{len(got)} features with the names, order and types of training", features=len(got))


def problem(outputs: Outputs, *, n: int, task: str, classes: int) -> tuple[int, str] | None:
    """(row, what is wrong) of the first output that is no answer, or None."""
    wanted = (n, classes) if task == "multiclass" else (n,)
    if outputs.shape != wanted:
        return 0, f"outputs have shape {outputs.shape}; expected {wanted}"
    flat = outputs.reshape(n, -1)
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        return int(np.flatnonzero(~finite)[0]), "is not finite"
    if task == "regression":
        return None
    inside = ((flat >= 0) & (flat <= 1)).all(axis=1)
    if not inside.all():
        return int(np.flatnonzero(~inside)[0]), "is a probability outside 0..1"
    if task == "multiclass":
        sums = np.abs(flat.sum(axis=1) - 1)
        if (sums > 1e-6).any():
            return int(sums.argmax()), "has probabilities that don't add up to 1"
    return None


def output_range(subject: Subject, material: Material, *, classes: int) -> CheckResult:
    """Every answer is finite; probabilities lie in 0..1 and add up to 1."""
    name = "output-range"
    rows = material.heldout
    outputs = subject.predict(rows, material.events)
    wrong = problem(outputs, n=rows.height, task=subject.settings.task, classes=classes)
    if wrong is None:
        say = f"{rows.height:,} answers, all finite" + ("" if subject.settings.task == "regression" else " and in 0..1")
        return passed(name, say, rows=rows.height, smallest=float(outputs.min()), largest=float(outputs.max()))
    row, what = wrong
    shown_row = {key: shown(value) for key, value in rows.row(row, named=True).items()}
    got = _value(outputs, row) if outputs.ndim in (1, 2) and row < len(outputs) else None
    return failed(name, f"the answer for {who(subject.contract, shown_row)} {what}", row=shown_row, got=got)


def latency_budget(subject: Subject, material: Material, *, p99_s: float, one: Callable[[int], Events]) -> CheckResult:
    """p99 of one row at a time. A busy machine only ever slows it, so a bad result is measured again, twice."""
    name = "latency-budget"
    rows, tries = material.heldout[: min(CALLS, material.heldout.height)], []
    for _ in range(3):
        times = []
        for i in range(rows.height):
            events, row = one(i), rows[[i]]
            began = clock.elapsed()
            subject.predict(row, events)
            times.append(clock.elapsed() - began)
            if sum(times) > 20 * max(p99_s, 0.01) and np.median(times) > p99_s:
                break  # hopeless, and waiting for the rest helps nobody
        tries.append(np.array(times))
        if np.quantile(times[1:] or times, 0.99) <= p99_s:
            break
    best = min(tries, key=lambda t: float(np.quantile(t[1:] if len(t) > 1 else t, 0.99)))
    warm = best[1:] if len(best) > 1 else best  # the first call loads what later ones share
    p50, p99 = float(np.quantile(warm, 0.5)), float(np.quantile(warm, 0.99))
    evidence: dict[str, Any] = {
        "p50_ms": p50 * 1e3,
        "p99_ms": p99 * 1e3,
        "budget_ms": p99_s * 1e3,
        "calls": len(warm),
        "tries": len(tries),
    }
    say = f"p99 {p99 * 1e3:.1f} ms of one row (half below {p50 * 1e3:.1f} ms); the budget is {p99_s * 1e3:.0f} ms"
    if clock.is_virtual():
        return skipped(name, f"{say}; {NOT_REAL}", **evidence)
    if p99 <= p99_s:
        return passed(name, say, **evidence)
    slow = {key: shown(v) for key, v in rows.row(int(np.argmax(best)), named=True).items()}
    return failed(name, f"{say}; the slowest is {who(subject.contract, slow)}", slowest=slow, **evidence)
