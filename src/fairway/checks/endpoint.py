"""The staging test: the served endpoint against its own package, over whatever `call` speaks to (HTTP, in practice)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway import clock
from fairway.checks.extreme import Extreme, draw
from fairway.checks.requests import refusal_problem
from fairway.checks.result import NOT_REAL, CheckResult, failed, passed, skipped, unknown
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.contract.text import parse_contract, parse_settings
from fairway.runtime.package import Manifest, read_heldout, verify

Call = Callable[[str, bytes], tuple[int, bytes]]

EXACT = 1e-9
BATCH = 50
LATENCY_CALLS = 200
FIRST_CALLS = 20  # not counted: the first ones load what later ones share
EXTREME_CALLS = 60  # of each kind, at least one of every column; the packaged model has answered them all before
_NAMES = ("staging-heldout", "staging-extreme", "staging-latency")


def endpoint_test(call: Call, endpoint: str, package_dir: Path, seed: int = 0) -> list[CheckResult]:
    """Held-out rows equal to the package's outputs, extreme requests answered or refused by name, latency in budget.

    call: (path, body) -> (status, body); endpoint: its name in the URL, ".staging" included. Raises: TamperFound for a
    changed package; what `call` raises makes the checks unknown.
    """
    manifest = verify(package_dir)
    contract = parse_contract((package_dir / "contract.toml").read_text(encoding="utf-8"), file="contract.toml")
    settings = parse_settings((package_dir / "fairway.toml").read_text(encoding="utf-8"), file="fairway.toml")
    stored = read_heldout(package_dir)
    path = f"/v1/models/{endpoint}/predict"
    checks: list[Callable[[], CheckResult]] = [
        lambda: _heldout(call, path, manifest, stored),
        lambda: _extremes(call, path, contract, settings, stored, seed),
        lambda: _latency(call, path, settings, stored),
    ]
    results = []
    for name, check in zip(_NAMES, checks, strict=True):
        began = clock.elapsed()
        try:
            result = check()
        except OSError as error:
            result = unknown(name, f"{endpoint} can't be reached: {error}")
        results.append(CheckResult(**(vars(result) | {"seconds": clock.elapsed() - began})))
    return results


def _body(stored: Mapping[str, Any], picked: Sequence[int]) -> bytes:
    """Rows as a request; a staging endpoint takes each row's events with it, in place of the online look-up."""
    value: dict[str, Any] = {"rows": [stored["rows"][i] for i in picked]}
    events = stored.get("events") or []
    if any(events):
        value["events"] = [events[i] or {} for i in picked]
    return json.dumps(value, ensure_ascii=False).encode()


def _answers(body: bytes, manifest: Manifest) -> list[Any] | str:
    """Outputs in the package's own shape, or what is wrong with the answer."""
    try:
        outputs = json.loads(body)["outputs"]
        if manifest.task == "regression":
            return [float(o["value"]) for o in outputs]
        if manifest.task == "binary":
            return [float(o["probability"][manifest.classes[1]]) for o in outputs]
        return [[float(o["probability"][name]) for name in manifest.classes] for o in outputs]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"is no answer of a {manifest.task} model: {type(error).__name__} {error}: {_short(body)}"


def _short(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")


def _heldout(call: Call, path: str, manifest: Manifest, stored: Mapping[str, Any]) -> CheckResult:
    name, n, largest = "staging-heldout", len(stored["rows"]), 0.0
    if not n:
        return skipped(name, "the package holds no held-out rows", ask=True)
    for start in range(0, n, BATCH):
        picked = list(range(start, min(start + BATCH, n)))
        status, body = call(path, _body(stored, picked))
        if status != 200:
            return failed(name, f"rows {start} to {picked[-1]} got status {status}: {_short(body)}", status=status)
        outputs = _answers(body, manifest)
        if isinstance(outputs, str) or len(outputs) != len(picked):
            say = outputs if isinstance(outputs, str) else f"holds {len(outputs)} answers for {len(picked)} rows"
            return failed(name, f"the answer {say}")
        got = np.array(outputs, dtype=np.float64)
        wanted = np.array([stored["outputs"][i] for i in picked], dtype=np.float64)
        if got.shape != wanted.shape:
            return failed(name, f"the answers have shape {got.shape}, the package gives {wanted.shape}")
        apart = np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))
        apart = np.nan_to_num(apart if apart.ndim == 1 else apart.max(axis=1), nan=np.inf)
        worst = int(apart.argmax())
        if apart[worst] > EXACT:
            row = picked[worst]
            say = f"held-out row {row} gets {got[worst].tolist()} over HTTP and {wanted[worst].tolist()} offline"
            return failed(name, say, row=stored["rows"][row], got=got[worst].tolist(), wanted=wanted[worst].tolist())
        largest = max(largest, float(apart[worst]))
    exact = "exactly" if largest == 0.0 else f"largest difference {largest:.0e}"
    say = f"{n} held-out rows over HTTP equal the offline predictions ({exact})"
    return passed(name, say, rows=n, largest=largest)


def _chosen(extremes: Sequence[Extreme], seed: int) -> list[Extreme]:
    """Some of every kind and column, so that the test stays short on wide tables."""
    rng = np.random.default_rng(seed)
    by_place: dict[tuple[str, str | None], list[Extreme]] = {}
    for extreme in extremes:
        by_place.setdefault((extreme.kind, extreme.column), []).append(extreme)
    kinds = [kind for kind, _ in by_place]
    found = []
    for (kind, _), several in by_place.items():
        many = max(1, EXTREME_CALLS // kinds.count(kind))
        keep = rng.choice(len(several), min(many, len(several)), replace=False)
        found += [several[i] for i in sorted(keep)]
    return found


def _extremes(
    call: Call, path: str, contract: Contract, settings: Settings, stored: Mapping[str, Any], seed: int
) -> CheckResult:
    name = "staging-extreme"
    if not stored["rows"]:
        return skipped(name, "the package holds no held-out rows to start from", ask=True)
    # A deeply nested or huge body ends at the server's own limits, which have their own tests.
    drawn = [e for e in draw(contract, settings, stored["rows"], seed=seed) if len(e.body) < 2**20]
    chosen, wrong, answered = _chosen(drawn, seed), [], 0
    for extreme in chosen:
        status, body = call(path, extreme.body)
        complaint = _complaint(extreme, status, body)
        answered += status == 200
        if complaint:
            found = {"column": extreme.column, "input": extreme.name, "body": extreme.shown(), "status": status}
            wrong.append(found | {"problem": complaint, "answer": _short(body)})
    counted: dict[str, Any] = {"requests": len(chosen), "answered": answered, "seed": seed}
    if wrong:
        first = wrong[0]
        where = f'column "{first["column"]}", ' if first["column"] else ""
        say = f"{where}{first['input']} ({first['body']}): {first['problem']}"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return failed(name, say + more, wrong=wrong[:20], **counted)
    say = f"{len(chosen)} extreme inputs: {answered} answered, {len(chosen) - answered} refused by field name, no 5xx"
    return passed(name, say, **counted)


def _complaint(extreme: Extreme, status: int, body: bytes) -> str | None:
    if status == 200:
        if extreme.expected == "reject":
            return "was answered; it must be refused"
        try:
            outputs = json.loads(body, parse_constant=_no_constant)["outputs"]
        except (ValueError, KeyError, TypeError) as error:
            return f"the answer can't be read: {error}"
        if len(outputs) != extreme.rows:
            return f"got {len(outputs)} answers for {extreme.rows} rows"
        bad = [o for o in outputs if o.get("status", "ok") != "ok"]
        return f"the model failed: {bad[0]}" if bad else None
    try:
        field = json.loads(body).get("field")
    except (ValueError, AttributeError):
        return f"status {status} without a JSON error"
    return refusal_problem(extreme, status, field)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _latency(call: Call, path: str, settings: Settings, stored: Mapping[str, Any]) -> CheckResult:
    name, budget = "staging-latency", settings.endpoint.p99.total_seconds()
    if not stored["rows"]:
        return skipped(name, "the package holds no held-out rows", ask=True)
    best, n = float("inf"), len(stored["rows"])
    for _ in range(3):  # a busy machine only ever slows it
        times = []
        for i in range(FIRST_CALLS + LATENCY_CALLS):
            body = _body(stored, [i % n])
            began = clock.elapsed()
            status, answer = call(path, body)
            times.append(clock.elapsed() - began)
            if status != 200:
                return failed(name, f"a held-out row got status {status}: {_short(answer)}", status=status)
        counted = times[FIRST_CALLS:]
        best, half = min(best, float(np.quantile(counted, 0.99))), float(np.median(counted))
        if best <= budget:
            break
    say = f"p99 {best * 1e3:.1f} ms over HTTP, one row a request; the budget is {budget * 1e3:.0f} ms"
    evidence: dict[str, Any] = {
        "p99_ms": best * 1e3,
        "p50_ms": half * 1e3,
        "budget_ms": budget * 1e3,
        "calls": LATENCY_CALLS,
    }
    if clock.is_virtual():
        return skipped(name, f"{say}; {NOT_REAL}", **evidence)
    return passed(name, say, **evidence) if best <= budget else failed(name, say, **evidence)
