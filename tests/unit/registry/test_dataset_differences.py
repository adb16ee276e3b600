"""Two datasets: what their columns are called and of which type, and what that breaks."""

import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fairway.data import parts
from fairway.data.identity import dataset_id
from fairway.registry.differences import between
from fairway.store.base import SHOWN_BYTES, jsonable
from fairway.store.workspace import Workspace

SEED = 20261121
TYPES: dict[str, pl.DataType] = {
    "Int64": pl.Int64(), "Float64": pl.Float64(), "String": pl.String(), "Boolean": pl.Boolean(), "Date": pl.Date(),
}  # fmt: skip


@pytest.mark.parametrize("seed", [SEED + i for i in range(6)])
def test_columns_that_came_went_or_became_another_type(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    workspace = Workspace.create(tmp_path)
    before = {f"c{i}": rng.choice(list(TYPES)) for i in range(8)}
    gone, moved = rng.sample(list(before), 2)
    after = {name: kind for name, kind in before.items() if name != gone} | {"new": "Int64"}
    after[moved] = rng.choice([kind for kind in TYPES if kind != before[moved]])
    names = [kept(workspace, columns, rows) for columns, rows in ((before, 3), (after, 2))]

    found = between(workspace, *names)

    told = {(c["column"], c["key"]): c for c in found["contract"]["changes"]}
    assert set(told) == {(gone, "column"), (moved, "type"), ("new", "column")}
    change = told[moved, "type"]
    assert (change["one"], change["other"], change["effect"]) == (before[moved], after[moved], "breaks")
    assert told[gone, "column"]["effect"] == "breaks" and told["new", "column"]["effect"] == "none"
    assert {"what": "rows", "one": 3, "other": 2} in found["differences"]
    assert between(workspace, names[0], names[0])["differences"] == []


def kept(workspace: Workspace, columns: dict[str, str], rows: int) -> str:
    frame = pl.DataFrame({name: pl.Series([None] * rows, dtype=TYPES[kind]) for name, kind in columns.items()})
    name = dataset_id(frame)
    parts.store_dataset(workspace, name, frame, {}, now=datetime(2026, 1, 1, tzinfo=UTC))
    return name


def test_an_image_of_a_row_is_described_and_not_printed() -> None:
    row = {"icon": b"x" * SHOWN_BYTES, "photo": b"x" * (SHOWN_BYTES + 1)}
    shown = jsonable(row, most_bytes=SHOWN_BYTES)
    assert len(shown["icon"]) > SHOWN_BYTES and shown["photo"]["bytes"] == SHOWN_BYTES + 1
    assert len(shown["photo"]["sha256"]) == 64 and len(jsonable(row)["photo"]) > SHOWN_BYTES
