"""Rules over columns and tables: one meaning for tables and requests, and a grammar that knows nothing else."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.clock import from_us
from fairway.contract.columns import Column, Contract, Rule
from fairway.contract.examine import examine, refusal
from fairway.contract.pattern import unfit
from fairway.contract.request import compile_request
from fairway.contract.result import as_dict, as_html
from fairway.contract.settings import Settings
from fairway.contract.table import apply
from fairway.contract.text import dump_contract, parse_contract, parse_settings
from fairway.errors import ContractViolation, DataError, RequestError, SettingsError

SETTINGS = parse_settings(
    'format = 1\nname = "m"\ntask = "regression"\ntarget = "y"\n[data]\nsource = "t.csv"\n'
)  # fmt: skip
COLUMNS = (
    Column(name="a", type="int", nulls=True),
    Column(name="b", type="float", nulls=True),
    Column(name="kind", type="category", values=("x", "y"), nulls=True),
    Column(name="other", type="category", values=("y", "z"), nulls=True),
    Column(name="flag", type="bool", nulls=True),
    Column(name="from", type="datetime", nulls=True),
    Column(name="to", type="datetime", nulls=True),
    Column(name="day", type="date", nulls=True),
    Column(name="a b", type="string", nulls=True),
)
Y = Column(name="y", type="float", role="target", known="later")
RULES = {
    "numbers": ("a >= b", None), "value": ("a < 10", None), "times": ("to >= from", None),
    "kinds": ("kind == other", None), "kind": ('kind != "x"', "a > 0"), "true": ("flag == true", "b < 0.5"),
    "since": ('from >= "1971-01-01T00:00:00Z"', None),
    "days": ('day != "2020-02-29"', None), "text": ('`a b` == "ok"', 'kind == "y"'), "twice": ("b <= 1e1", "a != 3"),
}  # fmt: skip


def contract(*rules: Rule, columns: tuple[Column, ...] = COLUMNS, **more: Any) -> Contract:
    return Contract(columns=(*columns, Y), rules=rules, **more)


def rule(name: str) -> Rule:
    check, when = RULES[name]
    return Rule(name=name, check=check, when=when)


def request(held: Contract, rows: list[dict[str, Any]]) -> str | None:
    """The code a request is refused with, None when it is taken."""
    try:
        compile_request(held, SETTINGS).decode(json.dumps({"rows": rows}).encode())
    except RequestError as error:
        return error.code
    return None


moments = st.integers(0, 10**14).map(from_us)
ROW = st.fixed_dictionaries(
    {
        "a": st.none() | st.integers(-5, 15),
        "b": st.none() | st.sampled_from([-1.0, 0.0, -0.0, 0.25, 3.0, 10.0, 11.5]),
        "kind": st.none() | st.sampled_from(["x", "y"]),
        "other": st.none() | st.sampled_from(["y", "z"]),
        "flag": st.none() | st.booleans(),
        "from": st.none() | moments,
        "to": st.none() | moments,
        "day": st.none() | st.sampled_from([date(2020, 2, 29), date(2020, 3, 1)]),
        "a b": st.none() | st.sampled_from(["ok", "no", ""]),
    }
)


@given(ROW, st.sampled_from(sorted(RULES)))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_table_and_a_request_mean_the_same(row: dict[str, Any], name: str) -> None:
    held = contract(rule(name))
    wire = {k: v.isoformat() if isinstance(v, datetime | date) else v for k, v in row.items()}
    schema = {"a": pl.Int64, "b": pl.Float64, "kind": pl.String, "other": pl.String, "flag": pl.Boolean,
              "from": pl.Datetime("us", "UTC"), "to": pl.Datetime("us", "UTC"), "day": pl.Date,
              "a b": pl.String, "y": pl.Float64}  # fmt: skip
    frame = pl.DataFrame([row | {"y": 1.0}], schema=schema)
    found = examine(frame, held.columns, contract=held)
    (result,) = [r for r in found.results if r.rule == name]
    assert (result.verdict == "fail") == (request(held, [wire]) == "rule_broken")


def test_a_broken_rule_is_said_with_its_name_and_values() -> None:
    held = contract(Rule(name="arrival", check="to >= from", when="a > 1"))
    t = datetime(2020, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {"a": [2, 2, 1, None], "from": [t] * 4, "to": [t, t - timedelta(hours=1), t - timedelta(1), t - timedelta(1)]}
    )
    columns = tuple(c for c in COLUMNS if c.name in frame.columns)
    with pytest.raises(ContractViolation) as caught:
        apply(frame, columns, file="t", contract=contract(*held.rules, columns=columns))
    assert str(caught.value).startswith("t, row 2: breaks rule arrival, to >= from where a > 1: to is 2019-12-31 23:00")
    row = {"a": 2, "from": "2020-01-01T00:00:00Z", "to": "2019-01-01T00:00:00Z"}
    with pytest.raises(RequestError, match=r"rows\[1\].to: breaks rule arrival: to >= from where a > 1"):
        compile_request(held, SETTINGS).decode(json.dumps({"rows": [{}, row]}).encode())


def test_a_rule_over_what_is_known_later_is_for_tables_only() -> None:
    held = contract(Rule(name="later", check="y >= a"))
    assert request(held, [{"a": 5}]) is None
    frame = pl.DataFrame({"a": [5], "y": [1.0]})
    assert [r.rule for r in examine(frame, [COLUMNS[0], Y], contract=held).broken] == ["later"]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("a >> b", "it must be a column, one of =="),
        ("a", "it must be a column"),
        ("a >= b >= a", "it must be a column"),
        ("1 >= a", "it must be a column"),
        ("a >= bb", '"bb", which is no column; did you mean b?'),
        ("a + b > 3", "can't be read at"),
        ("a > __import__('os')", "can't be read at"),
        ("a > b; a", "can't be read at"),
        ("a > kind", "compares a (int) with kind (category)"),
        ('kind > "x"', "asks for the order"),
        ('kind == "z"', "none of its values"),
        ("a == true", "compares a (int) with True"),
        ('a == "3"', "compares a (int) with '3'"),
        ("a > 99999999999999999999", "compares a"),
        ("from > 5", "write a time with its zone in quotes"),
        ('from > "2020-01-01"', "no ISO datetime"),
        ('day == "tomorrow"', "no ISO date"),
        ("y > ", "it must be"),
    ],
)
def test_the_grammar_is_strict(check: str, says: str) -> None:
    columns = "".join(
        f'[columns."{c.name}"]\ntype = "{c.type}"\n' + (f"values = {json.dumps(c.values)}\n" if c.values else "")
        for c in (*COLUMNS, Y)
    )
    text = f"format = 1\n{columns}\n[rules.r]\ncheck = {json.dumps(check)}\n"
    if check == "a > 99999999999999999999":  # a float stands for it, as TOML's own numbers do
        parse_contract(text)
        return
    with pytest.raises(SettingsError) as caught:
        parse_contract(text)
    assert "rules.r.check" in str(caught.value) and says in str(caught.value)


TABLE = [
    (Column(name="x", type="int", unique=True, nulls=True), [1, 2, None, 2, None], [2, 4], "comes more than once"),
    (Column(name="x", type="int", monotonic="rises", nulls=True), [1, 1, None, 0, 5], [4], "is below the row before"),
    (Column(name="x", type="int", monotonic="strictly"), [1, 1, 2], [2], "is not above the row before"),
    (Column(name="x", type="string", pattern="[a-z]{2}"), ["ab", "abc", "ab\n", "Ab"], [2, 3, 4], "declared pattern"),
    (Column(name="x", type="category", values=("a",), unseen="reject"), ["a", "b"], [2], "none of the declared values"),
    (Column(name="x", type="vector", length=2, range=(0, 1)), [[0, 1], [0, 2]], [2], "leaves the declared range"),
    (Column(name="x", type="vector", length=2), [[0, 1], [1], [1, None]], [2, 3], "a list of 1 is not a list of 2"),
    (Column(name="x", type="image", formats=("png",)), [b"\x89PNG\r\n\x1a\n1", b"GIF89a"], [2], "6 bytes are no png"),
    (Column(name="x", type="image", formats=("webp",)), [b"RIFF1234WEBPx", b"RIFF1234WAVEx"], [2], "no webp image"),
    (Column(name="x", type="image", max_length=3), [b"123", b"1234"], [2], "longer than max_length (3 bytes)"),
    (Column(name="x", type="text", max_length=3), ["abc", "äöü", "abcd"], [3], "longer than max_length (3 char"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "rows", "says"), TABLE)
def test_rules_of_one_column(column: Column, values: list[Any], rows: list[int], says: str) -> None:
    found = examine(pl.DataFrame({"x": values}, strict=False), [column], file="t")
    (result,) = found.broken
    assert [row.row for row in result.rows] == rows and result.broken == len(rows)
    assert says in str(refusal(result))
    good = [v for place, v in enumerate(values, 1) if place not in rows]
    assert examine(pl.DataFrame({"x": good}, strict=False), [column]).verdict == "pass"


ENDS: dict[str, list[Any]] = {
    "int": [-(2**53) - 1, -1, 0, 1, 7, 2**53 + 1], "float": [-1e308, -0.5, 0.0, 0.5, 1e308],
    "datetime": ["1969-12-31T23:59:59Z", "2020-01-01T00:00:00Z", "2020-01-01T00:00:01Z", "9990-01-01T00:00:00Z"],
    "date": ["1969-12-31", "2020-01-01", "2020-01-02", "9990-01-01"], "vector": [-2.0, 0.0, 0.25, 9.0],
}  # fmt: skip


@given(st.sampled_from(sorted(ENDS)), st.data())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_range_with_an_open_end_means_the_same_in_a_table_and_a_request(kind: str, data: st.DataObject) -> None:
    end, value = (data.draw(st.sampled_from(ENDS[kind])) for _ in range(2))
    is_low = data.draw(st.booleans())
    ends = json.dumps([end, "OPEN"] if is_low else ["OPEN", end]).replace('"OPEN"', "inf" if is_low else "-inf")
    length = "length = 1\n" if kind == "vector" else ""
    text = f'format = 1\n[columns.x]\ntype = "{kind}"\n{length}range = {ends}\n[columns.y]\ntype = "float"\n'
    held = parse_contract(text + 'role = "target"\n')
    assert parse_contract(dump_contract(held)) == held and held.columns[0].range is not None
    assert None in held.columns[0].range
    frame = pl.DataFrame({"x": [[value] if kind == "vector" else value], "y": [1.0]})
    wire = {"x": [value] if kind == "vector" else value}
    fits = value >= end if is_low else value <= end
    assert examine(frame, held.columns, contract=held).verdict == ("pass" if fits else "fail")
    assert request(held, [wire]) == (None if fits else "out_of_range")


@pytest.mark.parametrize(
    "ends", ["[-inf, inf]", "[inf, 1]", "[0, -inf]", "[nan, inf]", "[0, nan]", '["a", inf]', "[5, 1]"]
)
def test_a_range_that_says_nothing_is_refused(ends: str) -> None:
    for key in ("range", "seen"):
        with pytest.raises(SettingsError, match=f"columns.x.{key}"):
            parse_contract(f'format = 1\n[columns.x]\ntype = "float"\n{key} = {ends}\n')
    with pytest.raises(SettingsError, match=r"columns\.x\.seen"):
        parse_contract('format = 1\n[columns.x]\ntype = "float"\nseen = [0, inf]\n')


def test_rules_of_the_table() -> None:
    at = Column(name="at", type="datetime", role="at")
    now = datetime(2026, 1, 10, tzinfo=UTC)
    frame = pl.DataFrame({"at": [now - timedelta(days=3), now - timedelta(days=2, hours=1)]})
    held = Contract(columns=(at,), rows=(3, 9), fresh=timedelta(days=2))
    found = examine(frame, held.columns, contract=held, now=now, file="t")
    assert [r.rule for r in found.broken] == ["rows", "fresh"]
    assert "2026-01-07T23:00:00" in str(refusal(found.broken[1])) and "at most 2d" in str(refusal(found.broken[1]))
    assert examine(frame, held.columns, contract=held, now=now, height=3).results[-2].verdict == "pass"
    without = Contract(columns=(), fresh=timedelta(days=2))
    assert examine(frame, (), contract=without, now=now).verdict == "unknown"  # never pass where it can't be told


def test_the_result_for_machines_and_browsers() -> None:
    held = contract(Rule(name="r", check="a <= 1"), columns=COLUMNS[:1])
    found = examine(pl.DataFrame({"a": [1, 2, None, 5], "y": [1.0] * 4}), held.columns, contract=held, file="<t>")
    made = as_dict(found, table="<t>")
    json.dumps(made)
    (broken,) = [r for r in made["rules"] if r["verdict"] == "fail"]
    assert (broken["rule"], broken["broken"]) == ("r", 2)
    assert [(row["row"], row["values"]) for row in broken["rows"]] == [(2, {"a": "2"}), (4, {"a": "5"})]
    page = as_html(found, table="<t>")
    assert "<t>" not in page and "&lt;t&gt;" in page and "a &lt;= 1" in page


@given(st.text(alphabet="ab1-ä\n A", max_size=6))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_pattern_means_the_same_in_both(text: str) -> None:
    for pattern in ("[a-b]+", r"\w*", r".{2}", r"a|b1?", r"\d", "[^a]*"):
        column = Column(name="x", type="string", pattern=pattern)
        held = Contract(columns=(column, Y))
        table = examine(pl.DataFrame({"x": [text], "y": [1.0]}), held.columns).verdict == "pass"
        assert table == (request(held, [{"x": text}]) is None), (pattern, text)


EVIL = ["(a+)+", "((a*)b)*", "(?=a)b", "(?i)a", r"(a)\1", "a++", "(", "[a&&b]", "[[a]]", "x" * 501]


@pytest.mark.parametrize("pattern", EVIL)
def test_patterns_that_would_not_read_alike_or_never_end(pattern: str) -> None:
    assert unfit(pattern)
    with pytest.raises(SettingsError, match=r"columns\.x\.pattern"):
        parse_contract(f'format = 1\n[columns.x]\ntype = "string"\npattern = {json.dumps(pattern)}\n')


def test_ids_of_contracts_from_before_the_new_rules_stay() -> None:
    columns = (
        Column(name="a", type="int", seen=(1, 5), range=(0, 9)),
        Column(name="b", type="category", values=("x", "y"), nulls=True, why="q"),
        Column(name="c", type="string", role="entity", log="hash", max_length=77),
    )
    old = Contract(columns=columns, sources=(("s", (Column(name="t", type="datetime", zone="UTC"),)),))
    assert old.version == "contract-25b00fc7b6e4"  # as version 0.1 computed it
    assert Contract(columns=(*columns, Column(name="v", type="vector", length=3))).version != old.version
    base = Contract(columns=columns)
    ids = {base.version, Contract(columns=columns, rows=(1, 2)).version,
           Contract(columns=columns, fresh=timedelta(days=1)).version,
           Contract(columns=columns, rules=(Rule(name="r", check="a > 1"),)).version}  # fmt: skip
    assert len(ids) == 4 and Contract(columns=columns, reviewed=True).version == base.version


def test_what_is_refused_is_of_one_kind() -> None:
    """A value of the wrong type is the table's, a broken rule the contract's: both DataError, told apart by code."""
    with pytest.raises(DataError) as caught:
        apply(pl.DataFrame({"a": ["x"]}), COLUMNS[:1])
    assert caught.value.code == "data" and isinstance(SETTINGS, Settings)
