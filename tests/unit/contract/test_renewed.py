"""Contracts side by side, brought up to a table or a schema, and handed to others: nothing declared is lost."""

import dataclasses
import json
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml

from fairway.contract.columns import Column, Contract, Rule
from fairway.contract.compare import compare
from fairway.contract.odcs import as_odcs
from fairway.contract.rewrite import rewrite
from fairway.contract.text import dump_contract, parse_contract
from fairway.data.project import load_project
from fairway.errors import ModelCodeError, SettingsError, UsageError
from fairway.path.new import new
from fairway.path.outside_schema import from_pandera, overlay
from fairway.path.renewed import propose

SETTINGS = """format = 1
name = "churn"
task = "binary"
target = "left"
positive = "yes"
entity = "customer"
[data]
source = "t.csv"
"""
FILE = """# Who wrote this: ana
format = 1
reviewed = true   # read on 3 March

[columns.customer]
type = "string"

[columns.tenure]  # months
type = "int"
unit = "months"
range = [0, 100]   # nobody stays longer
seen = [1, 9]

[rules.sane]
check = "tenure >= 0"

[columns.plan]
type = "category"
values = ["pro", "basic"]  # this order
unseen = "reject"

[columns.gone]
type = "float"

[columns.left]
type = "category"
values = ["no", "yes"]
"""
ROWS = 40


def table(**changed: Any) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "customer": [f"c{i:04}" for i in range(ROWS)],
            "tenure": [1 + i % 9 for i in range(ROWS)],
            "plan": ["pro", "basic"] * 20,
            "gone": [i / 2 for i in range(ROWS)],
            "left": ["yes", "no", "no", "no"] * 10,
        }
        | changed
    )


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(frame: pl.DataFrame, contract: str = FILE) -> Any:
        (tmp_path / ".fairway").mkdir(exist_ok=True)
        (tmp_path / "fairway.toml").write_text(SETTINGS)
        (tmp_path / "contract.toml").write_text(contract)
        frame.write_csv(tmp_path / "t.csv")
        return load_project(tmp_path)

    return write


def test_an_equal_table_changes_nothing(write: Any) -> None:
    proposal = propose(write(table()))
    assert proposal.text == FILE and not proposal.changes and proposal.contract.reviewed


def test_what_was_seen_moves_and_what_was_declared_stays(write: Any) -> None:
    more = {"tenure": [5 + i % 70 for i in range(ROWS)]}
    proposal = propose(write(table(**more)))
    assert [c.key for c in proposal.changes] == ["seen"] and proposal.contract.reviewed  # no rule has changed
    assert "seen = [5, 44]" in proposal.text
    for kept in ("# Who wrote this: ana", "# months", "range = [0, 100]   # nobody stays longer", "# this order",
                 "reviewed = true   # read on 3 March", 'check = "tenure >= 0"'):  # fmt: skip
        assert kept in proposal.text


def test_a_changed_table(write: Any) -> None:
    frame = table(
        plan=["pro", "basic", "team", "basic"] * 10,
        tenure=[None if i == 4 else 3 for i in range(ROWS)],
        extra=[f"{i % 7}.5" for i in range(ROWS)],
    ).drop("gone")
    project = write(frame)
    proposal = propose(project)
    made = {c.name: c for c in proposal.contract.columns}
    assert made["plan"].values == ("pro", "basic", "team")  # the old ones keep their places, which are their codes
    assert made["plan"].unseen == "reject" and made["tenure"].nulls and made["tenure"].range == (0, 100)
    assert "gone" not in made and made["extra"].type == "float" and made["extra"].assumed == ("known",)
    assert not proposal.contract.reviewed and "reviewed = false   # read on 3 March" in proposal.text
    assert parse_contract(proposal.text).columns == proposal.contract.columns
    proposal.write()
    assert not propose(load_project(project.root)).changes
    with pytest.raises(UsageError, match="edited while this ran"):
        proposal.write()


def test_a_few_wrong_values_are_the_tables_and_a_new_type_is_shown(write: Any) -> None:
    texts = ["ten" if i == 7 else str(i) for i in range(ROWS)]
    proposal = propose(write(table(tenure=texts)))
    assert not proposal.changes and "row 8, column tenure: 'ten' is not a whole number" in proposal.left[0]
    other = table(tenure=[f"since {i}" for i in range(ROWS)])
    with pytest.raises(SettingsError, match=r"does not go with the rest of the file: .*rules.sane.check"):
        propose(write(other))
    proposal = propose(write(other, FILE.replace('[rules.sane]\ncheck = "tenure >= 0"\n', "")))
    assert {"type", "range"} <= {c.key for c in proposal.changes} and "another type now" in proposal.left[0]


def test_rewriting_new_columns_and_odd_names() -> None:
    old = parse_contract(FILE)
    odd = Column(name='a "b" é', type="vector", length=3, seen=(0.5, 2.0), nulls=True)
    new_contract = dataclasses.replace(old, columns=(*old.columns, odd), reviewed=False)
    assert parse_contract(rewrite(FILE, new_contract)).columns == new_contract.columns


# -- compare ---------------------------------------------------------------------------------------------------------

BASE = Column(name="x", type="int", nulls=True, range=(0, 10))
KIND = Column(name="x", type="category", values=("a", "b"))
CHANGES: list[tuple[Column | None, Column | None, str, str]] = [
    (None, BASE, "widens", "callers may leave it out"),
    (None, dataclasses.replace(BASE, nulls=False), "breaks", "a request without it is refused"),
    (BASE, None, "breaks", "unknown_field"),
    (BASE, dataclasses.replace(BASE, type="float"), "changes", "still read"),
    (BASE, dataclasses.replace(BASE, type="bool"), "breaks", "wrong_type"),
    (BASE, dataclasses.replace(BASE, nulls=False), "breaks", "a row without it is refused"),
    (BASE, dataclasses.replace(BASE, range=(1, 10)), "breaks", "out_of_range"),
    (BASE, dataclasses.replace(BASE, range=(0, 11)), "widens", "more values"),
    (BASE, dataclasses.replace(BASE, range=None), "widens", "every value"),
    (BASE, dataclasses.replace(BASE, range=(0, None)), "widens", "more values"),
    (BASE, dataclasses.replace(BASE, range=(None, 9)), "breaks", "out_of_range"),
    (dataclasses.replace(BASE, range=(0, None)), BASE, "breaks", "out_of_range"),
    (BASE, dataclasses.replace(BASE, unit="kg"), "changes", "mean something else"),
    (BASE, dataclasses.replace(BASE, known="later"), "breaks", "unknown_field"),
    (BASE, dataclasses.replace(BASE, seen=(0, 1)), "none", "drift"),
    (BASE, dataclasses.replace(BASE, unique=True), "changes", "requests are not touched"),
    (KIND, dataclasses.replace(KIND, values=("a", "b", "c")), "widens", "+ c"),
    (KIND, dataclasses.replace(KIND, values=("b", "a")), "changes", "codes mean something else"),
    (KIND, dataclasses.replace(KIND, values=("a",), unseen="reject"), "breaks", "removed values are refused"),
    (Column(name="x", type="vector", length=2), Column(name="x", type="vector", length=3), "breaks", "wrong_length"),
    (Column(name="x", type="text"), Column(name="x", type="text", max_length=9), "breaks", "at most 9"),
    (Column(name="x", type="image"), Column(name="x", type="image", formats=("png",)), "breaks", "some images"),
    (Column(name="x", type="string"), Column(name="x", type="string", pattern="a"), "breaks", "another pattern"),
]


@pytest.mark.parametrize(("one", "other", "effect", "says"), CHANGES)
def test_what_a_change_does_to_callers(one: Column | None, other: Column | None, effect: str, says: str) -> None:
    first, second = (Contract(columns=(c,) if c else ()) for c in (one, other))
    assert compare(first, first) == ()
    found = compare(first, second)
    assert found[0].effect == effect and any(says in change.says for change in found), found
    json.dumps([change.as_dict() for change in found])


def test_rules_and_sources_are_compared_too() -> None:
    one = Contract(columns=(BASE,), rules=(Rule(name="r", check="x > 1"),), sources=(("s", (BASE,)),), rows=(1, 2))
    other = Contract(
        columns=(BASE,), rules=(Rule(name="r", check="x > 2"),), sources=(("s", ()),), fresh=timedelta(days=1)
    )
    found = {(c.column, c.key): c.effect for c in compare(one, other)}
    assert found == {("rules.r", "rule"): "breaks", ("sources.s.x", "column"): "breaks", ("", "rows"): "changes",
                     ("", "fresh"): "changes"}  # fmt: skip


# -- others' standards -----------------------------------------------------------------------------------------------

SCHEMA = """
import pandera.polars as pa
print("noise on stdout")
class Churn(pa.DataFrameModel):
    customer: str = pa.Field(unique=True, str_matches=r"^c[0-9]{4}$")
    tenure: int = pa.Field(ge=0, le=80, nullable=True)
    plan: str = pa.Field(isin=["pro", "basic"])
    other: int
    class Config:
        strict = True
OneEnd = pa.DataFrameSchema({"tenure": pa.Column(int, pa.Check.ge(0)), "gone": pa.Column(float, pa.Check.le(9))})
AsSchema = pa.DataFrameSchema({"tenure": pa.Column(float, [pa.Check.in_range(0, 9), pa.Check(lambda d: d)])})
NoSchema = 5
"""


def test_a_pandera_schema_is_taken(tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text(SCHEMA)
    found = from_pandera("schema.py:Churn", folder=tmp_path)
    made = overlay(parse_contract(FILE), found)
    columns = {c.name: c for c in made.contract.columns}
    assert columns["customer"].unique and columns["customer"].pattern == "c[0-9]{4}"
    assert columns["tenure"].range == (0, 80) and columns["tenure"].nulls and columns["tenure"].unit == "months"
    assert columns["plan"].type == "category" and set(columns["plan"].values) == {"pro", "basic"}
    assert not made.contract.reviewed and any("column other" in text for text in made.left)
    assert any("says nothing of gone, left" in text for text in made.left)
    plain = overlay(parse_contract(FILE), from_pandera("schema.py:AsSchema", folder=tmp_path))
    assert plain.contract.column("tenure").type == "float" and plain.contract.column("tenure").range == (0, 9)
    assert any("has no rule here" in text for text in plain.left)
    ends = overlay(parse_contract(FILE), from_pandera("schema.py:OneEnd", folder=tmp_path)).contract
    assert (ends.column("tenure").range, ends.column("gone").range) == ((0, None), (None, 9))


def test_a_schema_that_can_not_be_had(tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text(SCHEMA)
    (tmp_path / "broken.py").write_text("raise ValueError('not today')\n")
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)\n")
    with pytest.raises(UsageError, match=r"has no Nope; it has .*Churn"):
        from_pandera("schema.py:Nope", folder=tmp_path)
    with pytest.raises(UsageError, match="no DataFrameSchema"):
        from_pandera("schema.py:NoSchema", folder=tmp_path)
    with pytest.raises(UsageError, match="there is no"):
        from_pandera("none.py:Churn", folder=tmp_path)
    with pytest.raises(UsageError, match="names no schema"):
        from_pandera("schema.py", folder=tmp_path)
    with pytest.raises(ModelCodeError, match="not today"):
        from_pandera("broken.py:Churn", folder=tmp_path)
    with pytest.raises(ModelCodeError, match="without an answer"):
        from_pandera("ends.py:Churn", folder=tmp_path)


def test_new_takes_a_schema(tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text(SCHEMA)
    table().write_csv(tmp_path / "t.csv")
    made = new("churn", "t.csv", "left", folder=tmp_path, yes=True, contract="schema.py:Churn")
    column = made.project.contract.column("tenure")
    assert column.range == (0, 80) and column.nulls
    assert any(topic == "schema" for topic, _ in made.decisions)


def odcs_schema() -> Any:
    package = resources.files("open_data_contract_standard")
    return json.loads(package.joinpath("schema.json").read_text())


def test_the_export_is_valid_by_the_standard() -> None:
    columns = (
        Column(name="id", type="string", role="entity", unique=True, pattern="[a-z]+", log="hash"),
        Column(name="at", type="datetime", role="at", range=("2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z")),
        Column(name="day", type="date", nulls=True),
        Column(name="n", type="int", range=(0, 9), unit="kg", seen=(0, 5)),
        Column(name="kind", type="category", values=("a", "b"), unseen="reject"),
        Column(name="v", type="vector", length=3, range=(0, 1)),
        Column(name="photo", type="image", formats=("png",)),
        Column(name="words", type="text", null_values=("-",)),
        Column(name="y", type="bool", role="target", known="later"),
    )
    held = Contract(
        columns=columns, rules=(Rule(name="r", check="n > 1", when='kind == "a"'),), rows=(1, 5),
        fresh=timedelta(days=2), sources=(("events", (Column(name="at", type="datetime"),)),), reviewed=True,
    )  # fmt: skip
    document = as_odcs(held, name="churn", owner="ana@example.com")
    read = yaml.safe_load(yaml.safe_dump(document, sort_keys=False))
    assert read == json.loads(json.dumps(document))
    jsonschema.Draft201909Validator(odcs_schema()).validate(read)
    (first, _) = read["schema"]
    assert [p["name"] for p in first["properties"]] == [c.name for c in columns]
    assert first["quality"][1]["description"] == 'n > 1 when kind == "a"'
    plain = as_odcs(parse_contract(dump_contract(Contract(columns=columns[:1]))), name="x")
    jsonschema.Draft201909Validator(odcs_schema()).validate(json.loads(json.dumps(plain)))
