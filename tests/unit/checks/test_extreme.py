"""Extreme requests against the real decoder: every expectation of METHODS 6f is what it does."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fairway.checks import extreme, requests
from fairway.contract.columns import Column, Contract
from fairway.contract.request import compile_request
from fairway.contract.settings import EndpointSettings, Settings
from fairway.errors import RequestError

COLUMNS = (
    Column(name="id", type="string", role="entity"),
    Column(name="when", type="datetime", role="at"),
    Column(name="age", type="int", seen=(18, 90)),
    Column(name="income", type="float", nulls=True, seen=(0.0, 9e4)),
    Column(name="share", type="float", range=(0.0, 1.0)),
    Column(name="paid", type="float", range=(0.0, None)),
    Column(name="debts", type="int", range=(None, 3)),
    Column(name="place", type="vector", length=2, range=(None, 9.5)),
    Column(name="plan", type="category", values=("basic", "Gold"), null_values=("",), nulls=True),
    Column(name="region", type="category", values=("north", "south"), unseen="reject"),
    Column(name="note", type="string", max_length=500, nulls=True, null_values=("NULL",)),
    Column(name="active", type="bool", nulls=True),
    Column(name="since", type="datetime", nulls=True),
    Column(name="born", type="date"),
    Column(name="later", type="float", known="later"),
    Column(name="left", type="category", role="target", values=("no", "yes")),
)
ROWS = [
    {
        "id": f"c{i}", "when": "2024-05-01T00:00:00Z", "age": 20 + i, "income": 1.5 * i, "share": 0.5,
        "paid": 2.5, "debts": -1, "place": [0.5, -1.0], "plan": "basic",
        "region": "north", "note": "hello", "active": True, "since": None, "born": "1990-01-02",
    }
    for i in range(5)
]  # fmt: skip


def settings(**more: object) -> Settings:
    return Settings(name="churn", task="binary", target="left", positive="yes", entity="id", at="when", **more)  # type: ignore[arg-type]


def drawn(*, at_from_caller: bool) -> tuple[list[extreme.Extreme], Settings, Contract]:
    chosen = settings(endpoint=EndpointSettings(at_from_caller=at_from_caller))
    contract = Contract(columns=COLUMNS)
    return extreme.draw(contract, chosen, ROWS, seed=3), chosen, contract


class Steady:
    """A subject whose model answers everything; the decoder is what is tested."""

    def __init__(self, chosen: Settings) -> None:
        self.settings = chosen

    def predict_wire(self, columns: dict[str, list[object]], ats: list[int]) -> np.ndarray:
        assert {len(values) for values in columns.values()} == {len(ats)}
        return np.full(len(ats), 0.25)


@pytest.mark.parametrize("at_from_caller", [False, True])
def test_the_decoder_does_what_every_extreme_expects(at_from_caller: bool) -> None:
    extremes, chosen, contract = drawn(at_from_caller=at_from_caller)
    decode = compile_request(contract, chosen).decode
    for kind in dict.fromkeys(e.kind for e in extremes):
        result = requests.extreme_check(
            Steady(chosen), decode, [e for e in extremes if e.kind == kind], kind, now_us=0, classes=2
        )  # type: ignore[arg-type]
        assert result.verdict == "pass", result.summary
        assert result.name == f"extreme-{kind}"


def test_every_type_column_and_kind_is_there_and_a_seed_repeats_it() -> None:
    extremes, _, _ = drawn(at_from_caller=True)
    assert {e.kind for e in extremes} == {
        "int", "float", "category", "string", "bool", "datetime", "date", "vector", "row", "wire",
    }  # fmt: skip
    asked = {e.column for e in extremes} - {None}
    assert asked == {c.name for c in COLUMNS} - {"later", "left"}
    assert extremes == drawn(at_from_caller=True)[0]
    assert {e.column for e in drawn(at_from_caller=False)[0]} == asked - {"when"} | {None}


def test_a_model_that_breaks_on_a_category_is_named() -> None:
    extremes, chosen, contract = drawn(at_from_caller=False)

    class Breaks(Steady):
        def predict_wire(self, columns: dict[str, list[object]], ats: list[int]) -> np.ndarray:
            if any(value is None for value in columns["plan"]):
                raise KeyError("unseen plan")
            return np.full(len(ats), 0.25)

    picked = [e for e in extremes if e.kind == "category"]
    result = requests.extreme_check(
        Breaks(chosen), compile_request(contract, chosen).decode, picked, "category", now_us=0, classes=2
    )  # type: ignore[arg-type]
    assert result.verdict == "fail"
    assert 'column "plan"' in result.summary and "unseen plan" in result.summary


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.5, -0.1])
def test_an_answer_outside_its_range_fails(bad: float) -> None:
    extremes, chosen, contract = drawn(at_from_caller=False)

    class Strange(Steady):
        def predict_wire(self, columns: dict[str, list[object]], ats: list[int]) -> np.ndarray:
            return np.array([bad if age == -1 else 0.5 for age in columns["age"]])

    picked = [e for e in extremes if e.kind == "int"]
    result = requests.extreme_check(
        Strange(chosen), compile_request(contract, chosen).decode, picked, "int", now_us=0, classes=2
    )  # type: ignore[arg-type]
    assert result.verdict == "fail" and "minus one" in result.summary


def test_a_lax_decoder_is_caught() -> None:
    extremes, chosen, contract = drawn(at_from_caller=False)
    decode = compile_request(contract, chosen).decode

    def lax(body: bytes) -> object:
        if b'"age":true' in body:
            return decode(json.dumps({"rows": [{k: v for k, v in ROWS[0].items() if k != "when"}]}).encode())
        return decode(body)

    picked = [e for e in extremes if e.kind == "int"]
    result = requests.extreme_check(Steady(chosen), lax, picked, "int", now_us=0, classes=2)  # type: ignore[arg-type]
    assert result.verdict == "fail" and "must be refused" in result.summary


def test_a_refusal_must_name_the_column_and_be_a_4xx() -> None:
    bad = extreme.Extreme(kind="int", name="x", body=b"", expected="reject", column="age")
    assert requests.refusal_problem(bad, 422, "rows[0].age") is None
    assert "naming" in str(requests.refusal_problem(bad, 422, None))
    assert "4xx" in str(requests.refusal_problem(bad, 500, "rows[0].age"))
    assert "answered" in str(requests.refusal_problem(replace(bad, expected="ok"), 422, "rows[0].age"))


def test_no_held_out_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="no held-out row"):
        extreme.draw(Contract(columns=COLUMNS), settings(), [], seed=0)


def test_row_kind_order_is_answered_as_before() -> None:
    extremes, chosen, contract = drawn(at_from_caller=False)
    decode = compile_request(contract, chosen).decode
    turned = next(e for e in extremes if e.name == "fields in another order")
    decoded = decode(turned.body)
    assert decoded.n == 1 and list(decoded.columns) == [c.name for c in contract.request_columns if c.role != "at"]
    with pytest.raises(RequestError):
        decode(next(e for e in extremes if e.name == "a field twice").body)
