# ruff: noqa: E501  (one case per line)
"""The contract's rules on tables: what is read, what is repaired and said, and what is refused with its row."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from fairway.contract.columns import Column
from fairway.contract.table import apply, schema
from fairway.errors import ContractViolation, DataError


def column(xs: list[Any] | pl.Series, **rules: Any) -> Any:
    checked = apply(pl.DataFrame({"x": xs}), [Column(name="x", **rules)], file="t.csv")
    return checked.frame["x"].to_list(), checked.flags, checked.warnings


def refusal(xs: list[Any] | pl.Series, **rules: Any) -> str:
    with pytest.raises(DataError) as caught:
        column(xs, **rules)
    assert caught.value.column == "x"
    return str(caught.value)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("xs", "rules", "values"),
    [
        (["1", "+2", None], {"type": "int", "nulls": True}, [1, 2, None]),
        (["1", " "], {"type": "int", "nulls": True, "null_values": (" ",)}, [1, None]),
        ([1.0, None, float("nan")], {"type": "int", "nulls": True}, [1, None, None]),
        (["1.5", "-2e3", ".5"], {"type": "float"}, [1.5, -2000.0, 0.5]),
        (["1,5", "2"], {"type": "float", "decimal": ","}, [1.5, 2.0]),
        ([1, 2], {"type": "float"}, [1.0, 2.0]),
        (["true", "False"], {"type": "bool"}, [True, False]),
        (["b", "a"], {"type": "category", "values": ("a", "b")}, ["b", "a"]),
        ([True, False], {"type": "category", "values": ("false", "true")}, ["true", "false"]),
        ([3, 1], {"type": "category", "values": ("1", "3")}, ["3", "1"]),
        (["2014-05-01"], {"type": "date"}, [date(2014, 5, 1)]),
        (
            ["2014-05-01T00:00:00Z", "2014-05-01 02:30:00.000001+02:30", "2014-05-01T01:00+0100"],
            {"type": "datetime"},
            [at(2014, 5, 1), at(2014, 5, 1, 0, 0, 0, 1), at(2014, 5, 1)],
        ),
        (["2014-07-01", "2014-07-01 12:00:00"], {"type": "datetime", "zone": "Europe/Madrid"},
         [at(2014, 6, 30, 22), at(2014, 7, 1, 10)]),
        ([datetime(2014, 7, 1)], {"type": "datetime", "zone": "UTC"}, [at(2014, 7, 1)]),
        (["1900-01-01T00:00Z", "9999-12-31T23:59:59Z"], {"type": "datetime"}, [at(1900, 1, 1), at(9999, 12, 31, 23, 59, 59)]),
    ],
)  # fmt: skip
def test_values_become_the_declared_type(xs: list[Any], rules: dict[str, Any], values: list[Any]) -> None:
    assert column(xs, **rules)[0] == values


@pytest.mark.parametrize(
    ("xs", "rules", "says"),
    [
        (["1", "1.5"], {"type": "int"}, 't.csv, row 2, column x: "1.5" is not a whole number'),
        (["9223372036854775808"], {"type": "int"}, "is not a whole number"),
        ([1.5], {"type": "int"}, "row 1, column x: 1.5 is not a whole number"),
        ([True], {"type": "int"}, "True is not a whole number (the table has Boolean)"),
        (["1"] * 4 + ["70,35", "1", "2,5"], {"type": "float"}, '"70,35" is not a number (2 such rows: 5, 7).\nA comma as decimal mark? Declare decimal = ","'),
        (["1", "1,200.5"], {"type": "float"}, "Thousands marks are not read"),
        (["1", "n/a"], {"type": "float"}, 'Declare null_values = ["n/a"]'),
        (["1e999"], {"type": "float"}, '"1e999" is not a number'),
        ([1.0, float("inf")], {"type": "float"}, "row 2, column x: inf is not a finite number"),
        ([2**53 + 1], {"type": "float"}, "9007199254740993 is not a whole number that a float holds exactly"),
        (["yes"], {"type": "bool"}, '"yes" is not true or false'),
        ([1, 0], {"type": "bool"}, "the table has Int64"),
        (["2014-05-01"], {"type": "datetime"}, "Declare in which zone they are"),
        (["2014-05-01", "2014-05-01T00:00Z"], {"type": "datetime", "zone": "UTC"}, "with and without"),
        (["2014-03-30 02:30:00"], {"type": "datetime", "zone": "Europe/Madrid"}, "Clocks were set forward"),
        ([1398902400], {"type": "datetime"}, "has no declared unit"),
        (["2014-13-01T00:00Z"], {"type": "datetime"}, "is not an ISO 8601 time"),
        (["01/05/2014"], {"type": "date"}, "is not an ISO date"),
        (["a", "A"], {"type": "category", "values": ("a", "b"), "role": "target"}, '"A" is no class of the target; a?'),
        ([1, 7], {"type": "int", "values": ("0", "1"), "role": "target"}, "7 is no class of the target"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_row(xs: list[Any], rules: dict[str, Any], says: str) -> None:
    assert says in refusal(xs, **rules)


def test_declared_rules_refuse_and_seen_ranges_only_flag() -> None:
    assert column([1.0, 5.0, 9.0], type="float", seen=(0.0, 4.0))[1] == {"out_of_seen:x": 2}
    assert "5.0 is outside the declared range 0.0 to 4.0" in refusal([1.0, 5.0], type="float", range=(0.0, 4.0))
    assert column(["a", "c", " a"], type="category", values=("a",))[1] == {"unseen:x": 2}
    assert "none of the declared values" in refusal(["a", "c"], type="category", values=("a",), unseen="reject")
    assert "max_length" in refusal(["abc"], type="string", max_length=2)
    assert "is null, which is not allowed here (2 such rows: 2, 4)" in refusal([1, None, 2, None], type="int")
    with pytest.raises(ContractViolation):
        column([None, 1], type="int")


def test_repairs_and_odd_columns_are_said() -> None:
    assert column([1.0, float("nan")], type="float", nulls=True)[2] == ("column x: 1 NaN became null",)
    assert column([None, None], type="int", nulls=True)[2] == ("column x is null in every row",)
    assert column([1, 1], type="int")[2] == ("column x has the same value in every row",)
    ids = ("column x has another value in every row, like an id; is it one?",)
    assert column(list(range(50)), type="int")[2] == ids
    assert column(list(range(49)), type="int")[2] == column([0.5 * i for i in range(50)], type="float")[2] == ()
    assert "exist twice" in column(["2014-10-26 02:30:00", "2014-10-27"], type="datetime", zone="Europe/Madrid")[2][0]


def test_columns_go_by_name_and_extra_ones_are_named() -> None:
    frame = pl.DataFrame({"b": [1], "more": [0], "a": ["x"]})
    checked = apply(frame, [Column(name="a", type="string"), Column(name="b", type="int")])
    assert checked.frame.columns == ["a", "b"]
    assert checked.warnings == ("not used: more (ignored, or not in contract.toml)",)
    with pytest.raises(DataError, match="no such column; did more take its place"):
        apply(frame, [Column(name="mor", type="int")])


def test_rows_of_many_files_are_located() -> None:
    with pytest.raises(DataError) as caught:
        apply(
            pl.DataFrame({"x": ["1", "2", "?"]}), [Column(name="x", type="int")],
            locate=lambda index: ("one.csv", index + 1) if index < 2 else ("two.csv", index - 1),
        )  # fmt: skip
    assert (caught.value.file, caught.value.row) == ("two.csv", 1)


def test_schema() -> None:
    found = schema([Column(name="c", type="category", values=("a",)), Column(name="t", type="datetime")])
    assert found == {"c": pl.Enum(["a"]), "t": pl.Datetime("us", "UTC")}
