"""Snapshots: which rows may be learned from by when, what is refused, and ids that follow from content alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.data.identity import dataset_id
from fairway.data.project import Project, load_project
from fairway.data.snapshot import load_dataset, snapshot, source_events
from fairway.errors import ContractViolation, DataError, ThingNotFound

SETTINGS = """
format = 1
name = "late"
task = "binary"
target = "late"
positive = "yes"
entity = "id"
at = "at"
label_delay = "6h"
[data]
source = "t.csv"
"""
CONTRACT = """
format = 1
[columns.id]
type = "int"
[columns.at]
type = "datetime"
[columns.x]
type = "float"
nulls = true
seen = [0, 3]
[columns.late]
type = "category"
values = ["no", "yes"]
"""
ROWS = """id,at,x,late
1,2014-01-01T00:00:00Z,1.5,no
2,2014-01-01T01:00:00Z,,yes
3,2014-01-02T00:00:00Z,9.0,no
4,2014-01-02T01:00:00Z,1.0,
5,2014-01-03T00:00:00Z,1.0,yes
"""
OLD = """11,2013-12-01T00:00:00Z,1.0,yes
12,2013-12-01T01:00:00Z,1.0,no
13,2013-12-01T02:00:00Z,1.0,yes
14,2013-12-01T03:00:00Z,1.0,no
"""
NOW = datetime(2015, 1, 1, tzinfo=UTC)


def project(folder: Path, rows: str = ROWS, *, settings: str = SETTINGS, contract: str = CONTRACT) -> Project:
    (folder / ".fairway").mkdir(parents=True, exist_ok=True)
    (folder / "fairway.toml").write_text(settings)
    (folder / "contract.toml").write_text(contract)
    (folder / "t.csv").write_text(rows)
    return load_project(folder)


def test_rows_without_a_label_are_dropped_and_counted(tmp_path: Path) -> None:
    taken = snapshot(project(tmp_path), now=NOW)
    assert taken.frame["id"].to_list() == [1, 2, 3, 5]
    assert taken.counts["table"] == 5 and taken.counts["no_label"] == 1 and taken.counts["used"] == 4
    assert taken.flags == {"out_of_seen:x": 1}
    assert taken.newest == datetime(2014, 1, 3, tzinfo=UTC)
    assert list(taken.origin["files"]) == ["t.csv"]
    assert taken.frame.schema["late"] == pl.Enum(["no", "yes"])


@pytest.mark.parametrize(
    ("now", "ids", "future", "unknown"),
    [
        (datetime(2014, 1, 3, 6, tzinfo=UTC), [1, 2, 3, 5], 0, 0),
        (datetime(2014, 1, 3, 5, 59, tzinfo=UTC), [1, 2, 3], 0, 1),
        (datetime(2014, 1, 2, 12, tzinfo=UTC), [1, 2, 3], 1, 0),
        (datetime(2014, 1, 2, 5, tzinfo=UTC), [1, 2], 1, 1),
    ],
)
def test_a_label_counts_from_when_it_is_known(
    tmp_path: Path, now: datetime, ids: list[int], future: int, unknown: int
) -> None:
    taken = snapshot(project(tmp_path, ROWS + OLD), now=now)
    assert taken.frame["id"].to_list() == [11, 12, 13, 14, *ids]
    assert (taken.counts["future"], taken.counts["unknown_yet"]) == (future, unknown)


def test_a_column_may_say_when_the_label_is_known(tmp_path: Path) -> None:
    lines = (ROWS + OLD).splitlines()
    rows = "\n".join(
        [lines[0] + ",known_at", *(f"{line},2014-01-0{i}T00:00:00Z" for i, line in enumerate(lines[1:], 1))]
    )
    here = project(
        tmp_path,
        rows + "\n",
        settings=SETTINGS + 'label_at = "known_at"\n',
        contract=CONTRACT + '[columns.known_at]\ntype = "datetime"\nknown = "later"\n',
    )
    assert snapshot(here, now=datetime(2014, 1, 6, tzinfo=UTC)).frame["id"].to_list() == [11, 1, 2, 3, 5]


def test_until_fixes_the_past(tmp_path: Path) -> None:
    taken = snapshot(project(tmp_path, ROWS + OLD, settings=SETTINGS + 'until = "2014-01-02"\n'), now=NOW)
    assert taken.frame["id"].to_list() == [11, 12, 13, 14, 1, 2] and taken.counts["until"] == 2


def test_the_same_rows_written_otherwise_have_the_same_id(tmp_path: Path) -> None:
    first = snapshot(project(tmp_path / "a"), now=NOW)
    lines = ROWS.strip().split("\n")
    again = snapshot(project(tmp_path / "b", "\r\n".join([lines[0], *reversed(lines[1:])]) + "\r\n"), now=NOW)
    moved = "\n".join(",".join(reversed(line.split(","))) for line in lines) + "\n"
    assert first.dataset == again.dataset == snapshot(project(tmp_path / "c", moved), now=NOW).dataset
    other = snapshot(project(tmp_path / "d", ROWS.replace("1.5", "1.6")), now=NOW)
    assert other.dataset != first.dataset


def test_a_dataset_is_stored_once_and_read_back(tmp_path: Path) -> None:
    here = project(tmp_path)
    taken, again = snapshot(here, now=NOW), snapshot(here, now=NOW + timedelta(days=1))
    assert (taken.dataset, taken.parts) == (again.dataset, again.parts)
    assert load_dataset(here.workspace, taken.dataset).equals(taken.frame)
    with pytest.raises(ThingNotFound):
        load_dataset(here.workspace, "data-0")


def test_copies_are_counted(tmp_path: Path) -> None:
    rows = ROWS + "5,2014-01-03T00:00:00Z,1.0,yes\n"
    taken = snapshot(project(tmp_path, rows), now=NOW)
    assert taken.counts["duplicates"] == 1
    assert "1 row is an exact copy of another; kept" in taken.warnings


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("id,at,x,late\n", "t.csv: the table has no rows, only its columns"),
        ("id,at,x,late\n1,2014-01-01T00:00:00Z,1,no\n", "t.csv: one row is left to learn from"),
        (ROWS.replace("yes", "no"), "column late: every one of the 4 rows is no; a model needs at least two classes"),
        (ROWS.replace("yes", "").replace("no", ""), "no rows are left to learn from of 5: 5 without a value in late"),
        (ROWS.replace(",yes\n5", ",no\n5").replace("yes", "no", 1), "yes is the value of 1 row of 4"),
        (ROWS.replace("2014", "2114"), "4 with at in the future"),
        (ROWS.replace("no", "No"), 't.csv, row 1, column late: "No" is no class of the target; no? (2 such rows: 1, 3'),
        (ROWS.replace("9.0", "70,35").replace("70,35", '"70,35"'), 't.csv, row 3, column x: "70,35" is not a number'),
        (ROWS.replace("2014-01-02T00:00:00Z", "2014-01-02T00:00:00"), "row 3, column at"),
        (ROWS.replace("2014-01-02T00:00:00Z", ""), "row 3, column at: is null"),
        (ROWS.replace("id,at", "idd,at"), "column id: the table has no such column; did idd take its place?"),
    ],
)
def test_what_can_not_be_learned_from_is_refused(tmp_path: Path, rows: str, says: str) -> None:
    here = project(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        snapshot(here, now=NOW)
    assert says in str(caught.value)


def test_rows_keep_their_number_when_others_have_no_label(tmp_path: Path) -> None:
    rows = ROWS.replace("5,2014-01-03T00:00:00Z,1.0", "5,2014-01-03T00:00:00Z,one")
    with pytest.raises(DataError) as caught:
        snapshot(project(tmp_path, rows), now=NOW)
    assert caught.value.row == 5
    # A row without a label is of no use, and its other values are not judged.
    assert snapshot(project(tmp_path, ROWS.replace("01:00:00Z,1.0,", "01:00:00Z,one,")), now=NOW).rows == 4


def test_a_declared_rule_refuses(tmp_path: Path) -> None:
    here = project(tmp_path, contract=CONTRACT.replace("seen = [0, 3]", "range = [0, 3]"))
    with pytest.raises(ContractViolation, match=r"row 3, column x: 9.0 is outside the declared range 0 to 3"):
        snapshot(here, now=NOW)


def test_nothing_is_stored_of_a_refused_table(tmp_path: Path) -> None:
    here = project(tmp_path, ROWS.replace("yes", "no"))
    with pytest.raises(DataError):
        snapshot(here, now=NOW)
    assert not list(here.workspace.blobs)


# -- source tables ---------------------------------------------------------------------------------------------------

SOURCE = """
[sources.departures]
path = "d.csv"
at = "left_at"
key = "flight"
"""
SOURCE_CONTRACT = """
[sources.departures.columns.flight]
type = "int"
[sources.departures.columns.left_at]
type = "datetime"
[sources.departures.columns.delay]
type = "float"
nulls = true
"""
EVENTS = "flight,left_at,delay\n2,2014-01-02T00:00:00Z,5\n1,2014-01-01T00:00:00Z,\n2,2014-01-02T00:00:00Z,5\n"


def test_events_of_history_are_known_when_they_happen(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(EVENTS)
    here = project(tmp_path, settings=SETTINGS + SOURCE, contract=CONTRACT + SOURCE_CONTRACT)
    events = source_events(here, "departures", now=NOW)
    assert events.columns == ["flight", "left_at", "delay", "_known_at"]
    assert events["flight"].to_list() == [1, 2]
    assert events["_known_at"].equals(events["left_at"], null_equal=True)
    assert source_events(here, "departures", now=datetime(2014, 1, 1, 12, tzinfo=UTC))["flight"].to_list() == [1]
    (tmp_path / "d.csv").write_text(EVENTS.replace(",5\n1", ",6\n1"))
    with pytest.raises(DataError, match="2 is the key of more than one event"):
        source_events(here, "departures", now=NOW)
    (tmp_path / "d.csv").write_text(EVENTS.replace("1,2014", ",2014"))
    with pytest.raises(DataError, match="row 2, column flight: is null"):
        source_events(here, "departures", now=NOW)


def test_a_source_without_history_has_typed_columns(tmp_path: Path) -> None:
    settings = SETTINGS + SOURCE.replace('path = "d.csv"\n', "")
    here = project(tmp_path, settings=settings, contract=CONTRACT + SOURCE_CONTRACT)
    events = source_events(here, "departures", now=NOW)
    assert events.height == 0 and events.schema["left_at"] == pl.Datetime("us", "UTC")


# -- ids -------------------------------------------------------------------------------------------------------------

KNOWN = pl.DataFrame(
    {
        "at": [datetime(2014, 1, 2, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)],
        "id": [7, 2**53 + 1],
        "x": [-0.0, 1e308],
        "flag": [True, None],
        "kind": pl.Series(["b", "a"], dtype=pl.Enum(["a", "b"])),
        "text": ["ü😀", ""],
        "day": [None, datetime(2014, 1, 1).date()],
    }
)


def test_a_known_answer() -> None:
    assert dataset_id(KNOWN, at="at", entity="id") == "data-34ddef9fc0a32209"
    assert dataset_id(KNOWN[::-1], at="at", entity="id") == "data-34ddef9fc0a32209"
    assert dataset_id(KNOWN.with_columns(x=pl.Series([0.0, 1e308])), at="at", entity="id") == "data-34ddef9fc0a32209"


def test_every_value_name_and_type_counts() -> None:
    ids = {dataset_id(KNOWN, at="at", entity="id")}
    for change in (
        KNOWN.with_columns(id=pl.Series([7, 2**53])),
        KNOWN.with_columns(flag=pl.Series([True, False])),
        KNOWN.with_columns(text=pl.Series(["ü", "😀"])),
        KNOWN.with_columns(text=pl.Series(["ü😀", None])),
        KNOWN.with_columns(pl.col("kind").cast(pl.String)),
        KNOWN.rename({"text": "texts"}),
        KNOWN.head(1),
        pl.concat([KNOWN, KNOWN]),
    ):
        ids.add(dataset_id(change, at="at", entity="id"))
    assert len(ids) == 9


values = st.tuples(st.integers(-5, 5), st.sampled_from(["a", "b", ""]), st.none() | st.floats(-1, 1))


@given(st.lists(values, max_size=12), st.randoms())
def test_the_order_of_rows_does_not_count(rows: list[tuple[int, str, float | None]], random) -> None:  # type: ignore[no-untyped-def]
    def made(xs: list[tuple[int, str, float | None]]) -> pl.DataFrame:
        return pl.DataFrame(xs, schema={"i": pl.Int64, "s": pl.String, "f": pl.Float64}, orient="row")

    other = list(rows)
    random.shuffle(other)
    assert dataset_id(made(rows), at="i") == dataset_id(made(other), at="i")
