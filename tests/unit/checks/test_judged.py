"""Checks over numbers and the gate: what blocks, what asks, what only warns."""

import numpy as np
import polars as pl
import pytest

from fairway.checks import judged
from fairway.checks.gate import gate, judge
from fairway.checks.leaks import leak_suspect
from fairway.checks.result import CheckResult, failed, passed, skipped, too_few, unknown
from fairway.contract.columns import Column, Contract
from fairway.contract.settings import Settings
from fairway.training.evaluate import BASE_RATE, Evaluation, base_rate, evaluate


def settings(**more: object) -> Settings:
    return Settings(name="m", task="binary", target="y", positive="1", **more)  # type: ignore[arg-type]


def good(n: int = 1000, *, champion: str | None = None, rows: int | None = None) -> Evaluation:
    """champion: "same", "better" or "worse" than this version."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.4).astype(np.int64)
    p = 1 / (1 + np.exp(-(2 * (y - 0.5) + rng.normal(size=n))))
    others = {"same": p, "better": 0.5 * p + 0.5 * y, "worse": 0.5 * p + 0.5 * rng.random(n), None: None}
    mask = None if rows is None else np.arange(n) < rows
    return evaluate(
        "binary", y, p, classes=("0", "1"), rivals={BASE_RATE: base_rate("binary", y, k=2, n=n)},
        champion=others[champion], champion_rows=mask,
    )  # fmt: skip


def test_gates() -> None:
    results = judged.metric_gates(settings(gates={"auc": ">= 0.80", "brier": "< 0.01"}), good())
    assert [(r.name, r.verdict) for r in results] == [("metric-gate-auc", "pass"), ("metric-gate-brier", "fail")]
    assert results[0].evidence["rows"] == 1000
    assert judged.metric_gates(settings(gates={"auc": ">= 0.8"}), good(40))[0].verdict == "too_few"
    assert judged.metric_gates(settings(gates={"auc": ">= 0.8"}), None, "NaN")[0].verdict == "unknown"
    assert judged.metric_gates(settings(gates={"mae": "< 1"}), good())[0].verdict == "unknown"
    assert judged.parse_gate("<= 5%") == ("<=", 0.05)
    with pytest.raises(ValueError, match="is not a gate"):
        judged.parse_gate("about 5")


def test_better_than_base_rate() -> None:
    assert judged.better_than_base_rate(good()).verdict == "pass"
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 500)
    noise = evaluate("binary", y, rng.random(500), rivals={BASE_RATE: np.full(500, y.mean())}, classes=("0", "1"))
    assert judged.better_than_base_rate(noise).verdict == "fail"
    assert judged.better_than_base_rate(good(30)).verdict == "too_few"
    assert judged.better_than_base_rate(None, "row 3 is NaN").summary == "row 3 is NaN"


@pytest.mark.parametrize(
    ("champion", "rows", "verdict"),
    [("same", None, "pass"), ("worse", None, "pass"), ("better", None, "fail"), ("same", 150, "too_few"),
     ("same", 0, "too_few"), (None, None, "skip")],
)  # fmt: skip
def test_not_worse_than_champion(champion: str | None, rows: int | None, verdict: str) -> None:
    evaluation = good(champion=champion, rows=rows)
    result = judged.not_worse_than_champion(evaluation, f"m@{1}" if champion else None)
    assert result.verdict == verdict, result.summary
    if verdict == "skip":
        assert result.summary == "there is no champion yet"


def columns(*names: str) -> Contract:
    return Contract(columns=(*(Column(name=n, type="float", nulls=True) for n in names),
                             Column(name="y", type="int", role="target")))  # fmt: skip


def test_leak_suspect_names_the_column() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 400)
    frame = pl.DataFrame(
        {"honest": rng.normal(size=400) + y, "leak": 1.0 - y, "gone": pl.Series([None if v else 1.0 for v in y])}
    )
    assert leak_suspect(columns("honest"), settings(), frame, y, None).verdict == "pass"
    result = leak_suspect(columns("honest", "leak"), settings(), frame, y, None)
    assert result.verdict == "fail" and result.evidence["column"] == "leak"
    nulls = leak_suspect(columns("honest", "gone"), settings(), frame, y, None)
    assert nulls.verdict == "fail" and nulls.evidence["column"] == "gone"
    many = frame.with_columns(code=pl.Series([f"v{i}" for i in range(400)]))
    contract = Contract(columns=(Column(name="code", type="string"),))
    assert leak_suspect(contract, settings(), many, y, None).verdict == "pass", (
        "an id alone knows nothing of other rows"
    )


def test_leak_suspect_of_other_tasks_and_of_a_perfect_score() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=300)
    frame = pl.DataFrame({"copy": 2 * y + 1, "far": y + rng.normal(size=300)})
    regression = Settings(name="m", task="regression", target="y")
    assert leak_suspect(columns("far"), regression, frame, y, None).verdict == "pass"
    assert leak_suspect(columns("copy"), regression, frame, y, None).evidence["column"] == "copy"
    kinds = rng.integers(0, 3, 300)
    multiclass = Settings(name="m", task="multiclass", target="y")
    told = pl.DataFrame({"same": kinds * 1.0, "half": (kinds == 1) * 1.0})
    assert leak_suspect(columns("half"), multiclass, told, kinds, None).verdict == "pass"
    assert leak_suspect(columns("same"), multiclass, told, kinds, None).verdict == "fail"
    labels = rng.integers(0, 2, 200)
    perfect = evaluate("binary", labels, labels * 1.0, classes=("0", "1"))
    noise = pl.DataFrame({"x": rng.normal(size=200)})
    assert leak_suspect(columns("x"), settings(), noise, labels, perfect).verdict == "fail"


def test_rows_apart_and_review() -> None:
    contract = Contract(
        columns=(Column(name="id", type="int", role="entity"), Column(name="at", type="datetime", role="at"))
    )
    train, heldout = pl.DataFrame({"id": [1, 2], "at": [1, 1]}), pl.DataFrame({"id": [1, 3], "at": [2, 1]})
    assert judged.rows_apart(contract, train, heldout).verdict == "pass", "the same entity at another time is fine"
    assert judged.rows_apart(contract, train, train).evidence["rows"] == 2
    assert judged.rows_apart(Contract(columns=()), train, heldout).verdict == "skip"
    review = judged.contract_reviewed(contract)
    assert review.verdict == "skip" and review.ask


OK = passed("a", "fine")


@pytest.mark.parametrize(
    ("results", "risk", "answer"),
    [
        ([OK], "high", "pass"),
        ([OK, failed("b", "no")], "low", "fail"),
        ([OK, unknown("b", "did not run")], "low", "fail"),
        ([OK, too_few("b", "40 rows")], "medium", "pass"),
        ([OK, too_few("b", "40 rows")], "high", "ask"),
        ([OK, skipped("b", "no champion")], "high", "pass"),
        ([OK, skipped("b", "not reviewed", ask=True)], "high", "ask"),
        ([], "low", "fail"),
    ],
)
def test_gate(results: list[CheckResult], risk: str, answer: str) -> None:
    assert gate(results, risk) == answer  # type: ignore[arg-type]


def test_gate_counts_and_warns() -> None:
    found = judge([OK, too_few("b", "40 rows"), skipped("c", "none")], risk="medium")
    assert found.sentence == "1 pass, 0 fail, 1 too_few, 1 skip" and [w.name for w in found.warnings] == ["b"]
    assert CheckResult.from_dict(OK.as_dict()) == OK
