"""`log = "hash" | "drop"`: a planted value is nowhere in what is written, in whatever way it came."""

from pathlib import Path
from typing import Any

import apsw
import pytest
from keep_world import MODEL, notes, request

from fairway.checks.subject import who
from fairway.contract.columns import Column, Contract
from fairway.data import log
from fairway.data.segment import EventRow, Events, hashed, kept_event, kept_key, lookup_notes

MARK = "zebra-7319-marker"


def holders(root: Path, text: str = MARK) -> list[str]:
    """Files that hold the text: as it is, or in a Parquet file's values."""
    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            import io

            import polars as pl

            data = repr(pl.read_parquet(io.BytesIO(data)).to_dicts()).encode()
        if text.encode() in data:
            found.append(str(path.relative_to(root)))
    return found


@pytest.mark.parametrize("rule", ["hash", "drop"])
def test_a_planted_value_is_not_written(kept: Any, rule: str) -> None:
    columns = notes(who=rule, secret=rule, seen=rule)
    kept.fold(
        request(
            "r1", [MARK, "b"], secret=[f"{MARK}-in", "plain"],
            looked_up=[{"seen": f"{MARK}-up", "other": 1.0}, {}],
            errors=[f"ValueError: no rate for {MARK}-in of {MARK}", None],
        ),
        columns=columns,
    )  # fmt: skip
    assert holders(kept.workspace.folder) == []
    frame = log.predictions(kept.workspace, MODEL)
    row = frame.filter(frame["row"] == 0).to_dicts()[0]
    assert row["in_secret"] == (hashed(f"{MARK}-in") if rule == "hash" else None)
    assert row["lk_seen"] == (hashed(f"{MARK}-up") if rule == "hash" else None) and row["lk_other"] == 1.0
    assert row["unit"] == hashed(MARK) and "[not logged]" in row["answers"]
    assert "in_seen" not in frame.columns
    found = log.find(kept.workspace, row["prediction_id"])
    assert MARK not in repr(found)


def test_plain_columns_are_as_they_came(kept: Any) -> None:
    kept.fold(request("r1", [MARK], secret=[MARK], errors=[f"no rate for {MARK}"]))
    assert len(holders(kept.workspace.folder)) == 2  # the index, and the file


@pytest.mark.parametrize("rule", ["hash", "drop"])
def test_events_are_kept_as_their_columns_say(kept: Any, rule: str, tmp_path: Path) -> None:
    from fairway.data.segment import ColumnNote, Columns
    from fairway.serve.online import Slot, open_online

    columns = [ColumnNote("key", "string", "feature", rule), ColumnNote("name", "string", "feature", rule),
               ColumnNote("city", "string", "feature", rule)]  # fmt: skip
    key = kept_key(f"{MARK}-key", "key", columns)
    event = EventRow(key, 5, {"key": f"{MARK}-key", "name": f"{MARK}-name", "city": "Delft"}, 5)
    kept.fold(Events("trips", "contract-1", 5, [event]), columns=Columns("contract-1", "trips", columns))
    online = open_online(tmp_path / "online.db")
    online.watch([Slot("trips", "city")])
    online.put("trips", [kept_event(event, columns, plain={"city"})])
    online.close()
    assert holders(tmp_path) == []  # the workspace is in there too
    rows = apsw.Connection(str(tmp_path / "online.db")).execute("select key from event").fetchall()
    assert rows == [(hashed(f"{MARK}-key"),)]


def test_looked_up_columns_that_are_not_plain_are_noted() -> None:
    columns = (
        Column(name="a", type="string", known="lookup", log="hash"),
        Column(name="b", type="string", known="lookup"),
        Column(name="c", type="string", log="drop"),
    )
    assert [(n.name, n.role, n.log) for n in lookup_notes(columns)] == [("a", "lookup", "hash")]


@pytest.mark.parametrize(
    ("rule", "shown"), [("plain", f"who {MARK}"), ("hash", f"who {hashed(MARK)}"), ("drop", "a row")]
)
def test_evidence_names_a_row_as_the_log_would(rule: Any, shown: str) -> None:
    contract = Contract(columns=(Column(name="who", type="string", role="entity", log=rule),))
    assert who(contract, {"who": MARK}) == shown


def test_a_reference_names_no_bin_by_a_private_value() -> None:
    from datetime import timedelta

    import polars as pl

    from fairway.monitor.reference import build_reference

    frame = pl.DataFrame({"note": [MARK] * 60 + ["other"] * 60, "size": [1.0, 2.0] * 60})
    columns = [Column(name="size", type="float")]
    for rule, said in (("plain", True), ("hash", False), ("drop", False)):
        contract = Contract(columns=(Column(name="note", type="string", log=rule), *columns))  # type: ignore[arg-type]
        made = build_reference(frame, at=None, contract=contract, window=timedelta(days=1))
        assert (MARK in repr(made)) is said
