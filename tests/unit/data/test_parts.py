"""Datasets at rest: parts that later datasets share, ids of every type, and datasets of the first format."""

import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.data import parts
from fairway.data.identity import canonical, content_hash, dataset_id, duplicates, sorted_rows
from fairway.errors import TamperFound
from fairway.store import schema
from fairway.store.workspace import Workspace

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(rows: int, *, seed: int = 0, start: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "at": [NOW + timedelta(minutes=start + i) for i in range(rows)],
            "id": random.integers(0, 50, rows),
            "x": random.normal(size=rows),
            "s": [f"text {i}" for i in random.integers(0, 1000, rows)],
        }
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path)


def stored_bytes(workspace: Workspace) -> int:
    return sum(len(workspace.blobs.get(digest)) for digest in workspace.blobs)


def test_beside_older_code_a_dataset_is_one_part(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**14)
    frame = made(20_000)
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.meta).where(schema.meta.c.key == "format").values(value=1))
    (only,) = parts.store_dataset(workspace, "data-a", frame, {}, now=NOW, at="at")
    assert pl.read_parquet(io.BytesIO(workspace.blobs.get(only))).equals(frame)  # as format 1 reads it
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.meta).where(schema.meta.c.key == "format").values(value=schema.FORMAT))
    assert len(parts.store_dataset(workspace, "data-b", frame, {}, now=NOW, at="at")) > 10


@pytest.mark.parametrize("at", ["at", None])
def test_more_rows_copy_little(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, at: str | None) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**14)
    rows, more = made(60_000), made(600, seed=1, start=60_000)
    if at is None:
        rows, more = rows.drop("at"), more.drop("at")
    both = pl.concat([rows, more])
    for name, frame in (("data-a", rows), ("data-b", both)):
        before = stored_bytes(workspace)
        ordered = canonical(frame, at=at, entity="id")
        kept = parts.store_dataset(workspace, name, ordered, {}, now=NOW, at=at, entity="id", as_read=frame)
        assert parts.load_dataset(workspace, name).equals(ordered) and len(kept) > 50
        if name == "data-a":
            whole = stored_bytes(workspace)
    assert stored_bytes(workspace) - before < 0.05 * whole


def test_rows_that_were_put_in_between_copy_little(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**14)
    rows = made(60_000)
    first = set(parts.write_parts(workspace, rows))
    late = pl.concat([rows[:20_000], made(10, seed=2), rows[20_000:]])
    assert len(set(parts.write_parts(workspace, late)) - first) <= 3


def test_a_dataset_is_written_once(workspace: Workspace) -> None:
    frame = made(100)
    first = parts.store_dataset(workspace, "data-a", frame, {"files": {}}, now=NOW, at="at")
    again = parts.store_dataset(workspace, "data-a", frame, {"files": {"b": "1"}}, now=NOW, at="at")
    assert first == again and len(first) == 1
    with workspace.store.read() as tx:
        row = tx.execute(sa.select(schema.dataset)).one()
    assert row.blob == first[0] and row.parts == first and row.origin == {"files": {}}
    assert parts.blobs_of(row) == set(first)


def test_a_dataset_of_the_first_format_opens(workspace: Workspace) -> None:
    frame, buffer = made(100), io.BytesIO()
    frame.write_parquet(buffer)
    row = {
        "workspace": "default", "dataset": "data-old", "blob": workspace.blobs.put(buffer.getvalue()), "rows": 100,
        "columns": [], "origin": {}, "created_at": NOW,
    }  # fmt: skip
    with workspace.store.write() as tx:
        tx.execute(sa.insert(schema.dataset).values(row))
    assert parts.load_dataset(workspace, "data-old").equals(frame)


def test_a_changed_part_is_found(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**14)
    kept = parts.store_dataset(workspace, "data-a", made(5_000), {}, now=NOW, at="at")
    path = workspace.blobs.path(kept[2])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(TamperFound):
        parts.load_dataset(workspace, "data-a")


@given(st.integers(0, 5_000), st.sampled_from([[], ["at"], ["v"], ["v", "at"]]))
@settings(max_examples=20, derandomize=True, deadline=None)
def test_cuts_cover_every_row_once(rows: int, names: list[str]) -> None:
    frame = made(rows).with_columns(pl.concat_list("x").alias("v")).select("id", *names)
    frame = frame.drop("id") if names == ["v"] else frame
    found = parts.cuts(frame)
    assert found[0][0] == 0 and found[-1][1] == rows
    assert all(end == start for (_, end), (start, _) in pairwise(found))


# -- ids -------------------------------------------------------------------------------------------------------------

VECTORS = [[1.0, -0.0], None, [0.5, 1e300]]


def test_known_answers_of_vectors_and_images() -> None:
    """These never change: a dataset's id is written into versions and reports."""
    frame = pl.DataFrame(
        {"v": VECTORS, "image": [b"\x89PNG", None, b""]}, schema={"v": pl.List(pl.Float64), "image": pl.Binary}
    )
    assert dataset_id(frame) == dataset_id(frame[::-1]) == "data-34f4f38db73dcf44"
    fixed = frame.with_columns(pl.col("v").cast(pl.Array(pl.Float64, 2)))
    assert dataset_id(fixed) == dataset_id(fixed[::-1]) == "data-c8b37b3b5f64bff4"
    small = fixed.with_columns(pl.Series("v", [[1, 2], None, [3, 4]], pl.Array(pl.Float32, 2)))
    assert dataset_id(small) == dataset_id(small[::-1]) == "data-39279bbb0660304b"


def test_a_known_answer_of_many_chunks() -> None:
    rows = 150_000
    frame = pl.DataFrame(
        {
            "i": np.arange(rows), "x": np.arange(rows) / 8, "s": [f"t{i % 97}" for i in range(rows)],
            "n": [None if i % 3 else i for i in range(rows)],
        }
    )  # fmt: skip
    assert dataset_id(frame, at="i") == "data-7d2cd3f8b611851d"
    assert dataset_id(frame.sample(fraction=1, shuffle=True, seed=1), at="i") == "data-7d2cd3f8b611851d"


def test_every_number_of_a_vector_counts() -> None:
    def of(rows: list[list[float | None] | None]) -> str:
        return dataset_id(pl.DataFrame({"v": rows}, schema={"v": pl.List(pl.Float64)}))

    changed = ([[1.0], [2.0, 3.0]], [[1.0, 2.0], [3.0]], [[1.0, 2.0, 3.0], []], [[1.0, 2.0, 3.0], None])
    ids = {of(rows) for rows in (*changed, [[1.0, None], [3.0]])}
    assert len(ids) == 5 and of([[0.0]]) == of([[-0.0]])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["a", "b"]), st.none() | st.floats(-1, 1),
            st.none() | st.lists(st.floats(-1, 1), max_size=2),
        ),
        max_size=12,
    ),
    st.sampled_from([None, "i"]),
    st.sampled_from([None, "s"]),
    st.randoms(),
)  # fmt: skip
@settings(derandomize=True, deadline=None)
def test_order_is_that_of_all_columns(
    rows: list[tuple[object, ...]], at: str | None, entity: str | None, random
) -> None:  # type: ignore[no-untyped-def]
    kinds = {"s": pl.String, "i": pl.Int64, "f": pl.Float64, "v": pl.List(pl.Float64)}

    def frame(some: list[tuple[object, ...]]) -> pl.DataFrame:
        return pl.DataFrame([(s, i, f, v) for i, s, f, v in some], schema=kinds, orient="row")

    other = list(rows)
    random.shuffle(other)
    assert dataset_id(frame(rows), at=at, entity=entity) == dataset_id(frame(other), at=at, entity=entity)
    plain = frame(rows).drop("v")
    keys = [name for name in (at, entity) if name] + [n for n in plain.columns if n not in (at, entity)]
    ordered = sorted_rows(plain, at=at, entity=entity)
    assert ordered.equals(plain.sort(keys)) or ordered.rows() == plain.sort(keys).rows()
    assert duplicates(canonical(frame(rows), at=at, entity=entity)) == len(rows) - len(
        {
            (i, s, None if f is None else f + 0.0, None if v is None else tuple(x + 0.0 for x in v))
            for i, s, f, v in rows
        }  # type: ignore[operator, attr-defined]
    )


def test_content_follows_the_rows_as_they_come() -> None:
    frame = pl.DataFrame({"a": [1, 2], "o": [{"x": 1}, None]})
    assert content_hash(frame) == content_hash(frame.clone()) != content_hash(frame[::-1])
