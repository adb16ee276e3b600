"""Copies across the split, rare classes, a target that moved."""

import numpy as np
import polars as pl
import pytest

from fairway.checks.sample import class_balance, copies_apart, target_steady
from fairway.contract.columns import Column, Contract

CONTRACT = Contract(
    columns=(
        Column(name="id", type="string", role="entity"),
        Column(name="a", type="int", nulls=True),
        Column(name="b", type="float"),
        Column(name="y", type="int", role="target", known="later"),
    )
)


def rows(n: int, *, start: int = 0, null: bool = False) -> pl.DataFrame:
    number = np.arange(start, start + n)
    frame = pl.DataFrame({"id": [f"r{i}" for i in number], "a": number, "b": number / 7, "y": number % 2})
    return frame.with_columns(a=None) if null else frame


def test_copies_that_flatter_the_loss_are_refused() -> None:
    train, heldout = rows(400), pl.concat([rows(80), rows(60, start=1000)])
    losses = np.r_[np.full(80, 0.01), np.full(60, 0.3)]
    found = copies_apart(CONTRACT, train, heldout.with_columns(id=pl.lit("other")), losses)
    assert found.verdict == "fail"
    assert "80 of 140 held-out rows are copies" in found.summary
    assert found.evidence["loss_without_copies"] == pytest.approx(0.3)


def test_copies_of_equal_loss_are_natural() -> None:
    found = copies_apart(CONTRACT, rows(400), pl.concat([rows(80), rows(60, start=1000)]), np.full(140, 0.2))
    assert found.verdict == "pass" and found.evidence["copies"] == 80


def test_null_inputs_are_copies_too() -> None:
    same = pl.DataFrame(
        {"id": ["x"] * 50, "a": [None] * 50, "b": [1.0] * 50, "y": [1] * 50}, schema_overrides={"a": pl.Int64}
    )
    assert copies_apart(CONTRACT, same, same, np.full(50, 0.1)).evidence["copies"] == 50


def test_only_copies_leave_too_few_to_judge_by() -> None:
    assert copies_apart(CONTRACT, rows(100), rows(60), np.full(60, 0.1)).verdict == "too_few"


def test_no_copies_and_no_losses_pass() -> None:
    assert copies_apart(CONTRACT, rows(100), rows(60, start=500), None).verdict == "pass"


@pytest.mark.parametrize(("positives", "verdict"), [(0, "too_few"), (9, "too_few"), (10, "pass")])
def test_a_class_needs_rows_to_be_judged_on(positives: int, verdict: str) -> None:
    y = np.r_[np.ones(positives), np.zeros(1000)]
    assert class_balance(np.r_[np.ones(40), np.zeros(4000)], y, ("no", "yes")).verdict == verdict


def test_numbers_have_no_classes() -> None:
    assert class_balance(np.ones(5), np.ones(5), ()).verdict == "skip"


@pytest.mark.parametrize("times", [1000, 0.001, 60])
def test_another_unit_is_refused(times: float) -> None:
    y = np.random.default_rng(0).gamma(2.0, 30.0, 500)
    found = target_steady(y * times, y, (), "m@1")
    assert found.verdict == "fail" and "Another unit?" in found.summary
    assert target_steady(y * times, y, (), "m@1", declared=True).verdict == "pass"


@pytest.mark.parametrize("drift", [1.0, 1.6, 0.7])
def test_growth_is_no_other_unit(drift: float) -> None:
    y = np.random.default_rng(0).gamma(2.0, 30.0, 500)
    assert target_steady(y * drift, y, (), "m@1").verdict == "pass"


def test_a_shift_of_a_target_around_zero_is_measured_by_its_spread() -> None:
    y = np.random.default_rng(0).normal(0, 1, 500)
    assert target_steady(y + 1.0, y, (), "m@1").verdict == "pass"
    assert target_steady(y + 273.15, y, (), "m@1").verdict == "fail"  # Celsius, then Kelvin


def test_a_class_that_vanished_is_refused() -> None:
    before = np.array([0, 1, 2] * 100)
    found = target_steady(before[before < 2], before, ("a", "b", "c"), "m@1")
    assert found.verdict == "fail" and "class c had 100 rows" in found.summary
    assert target_steady(before, before, ("a", "b", "c"), "m@1").verdict == "pass"


def test_nothing_to_compare_with_is_skipped() -> None:
    y = np.ones(100)
    assert target_steady(y, None, (), None).verdict == target_steady(y, None, (), "m@1").verdict == "skip"
