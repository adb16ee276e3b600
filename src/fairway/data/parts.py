"""Datasets at rest: Parquet parts cut where the content says, so that a dataset with more rows shares the old parts."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from fairway import fingerprint
from fairway.data.identity import sorted_rows
from fairway.errors import ThingNotFound
from fairway.store import schema
from fairway.store.base import Row
from fairway.store.workspace import Workspace

PART_BYTES = 4 * 2**20  # of values in memory, on average: small enough that an append copies little
_FEWEST, _MOST = 2**8, 2**20  # rows
_THREADS = 2
_PARTS_SINCE = 2  # format of the store
_WIDE = 64  # bytes a text or list is taken for: the cuts may depend on types only, not on values elsewhere


def store_dataset(
    workspace: Workspace,
    dataset: str,
    frame: pl.DataFrame,
    origin: dict[str, Any],
    *,
    now: datetime,
    at: str | None = None,
    entity: str | None = None,
    as_read: pl.DataFrame | None = None,
) -> list[str]:
    """Keep the frame under its id; the same id is stored once, and parts that another dataset has are not written.

    frame: in the order of its id. as_read: the same rows in the order of their table: without a time column new rows
    belong anywhere in the sorted order, and only the table's own order keeps the old ones together.
    Returns: the hashes of its parts.
    """
    with workspace.store.read() as tx:
        row = _row(workspace, tx, dataset)
    if row is not None and row.erased_at is None and all(part in workspace.blobs for part in parts_of(row)):
        return parts_of(row)
    kept = frame if at is not None or as_read is None or frame.height <= _rows_per_part(frame) else as_read
    # Until the store's upgrade has ended, the fairway before may read here, and it knows datasets of one part only.
    parts = write_parts(workspace, kept, whole=workspace.store.oldest_format() < _PARTS_SINCE)
    order = None if kept is frame else {"at": at, "entity": entity}
    values = {
        "workspace": workspace.store.workspace,
        "dataset": dataset,
        # One part is a whole dataset of format 1. More are listed: what reads `blob` alone fails, and reads no half.
        "blob": parts[0] if len(parts) == 1 else workspace.blobs.put(fingerprint.canonical({"parts": parts})),
        "parts": parts,
        "rows": frame.height,
        "columns": [[name, str(dtype)] for name, dtype in frame.schema.items()],
        "origin": {**origin, "sort": order} if order else origin,
        "created_at": now,
        "erased_at": None,
    }
    with workspace.store.write() as tx:
        workspace.store.upsert(tx, schema.dataset, values)
    return parts


def load_dataset(workspace: Workspace, dataset: str) -> pl.DataFrame:
    """The frame of a dataset version. Raises: ThingNotFound; StoreError, TamperFound when a part is gone or changed."""
    with workspace.store.read() as tx:
        row = _row(workspace, tx, dataset)
    if row is None:
        raise ThingNotFound(f"no dataset {dataset!r}; list them with: fairway show datasets")
    frame = read_parts(workspace, parts_of(row))
    sort = row.origin.get("sort")
    return sorted_rows(frame, at=sort["at"], entity=sort["entity"]) if sort else frame


def parts_of(row: Row) -> list[str]:
    """The blobs that hold a dataset's rows; of format 1 it is one."""
    return list(row.parts) if row.parts else [str(row.blob)]


def blobs_of(row: Row) -> set[str]:
    """Every blob that a dataset keeps alive."""
    return {str(row.blob), *parts_of(row)}


def read_parts(workspace: Workspace, parts: Sequence[str]) -> pl.DataFrame:
    """The parts, verified, one below the other."""

    def read(part: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(workspace.blobs.get(part)))

    with ThreadPoolExecutor(_THREADS) as pool:
        frames = list(pool.map(read, parts))
    return pl.concat(frames) if len(frames) > 1 else frames[0]


def write_parts(workspace: Workspace, frame: pl.DataFrame, *, whole: bool = False) -> list[str]:
    """Store a frame's rows in their order; the hashes of its parts. whole: in one."""

    def write(rows: tuple[int, int]) -> str:
        buffer = io.BytesIO()
        # Statistics are for readers that skip; these parts are always read whole.
        frame[rows[0] : rows[1]].write_parquet(buffer, compression="zstd", compression_level=1, statistics=False)
        return workspace.blobs.put(buffer.getvalue())

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(write, [(0, frame.height)] if whole else cuts(frame)))


def cuts(frame: pl.DataFrame) -> list[tuple[int, int]]:
    """Where the parts begin and end. A row is a border by a hash of its own values, whatever stands around it."""
    size = _rows_per_part(frame)
    if frame.height <= size:
        return [(0, frame.height)]
    known = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
    if not known:
        return [(start, min(start + size, frame.height)) for start in range(0, frame.height, size)]
    # The hash only decides where it is cut, and so what is shared; what is stored never depends on them.
    borders = np.flatnonzero(frame.select(known).hash_rows(seed=0).to_numpy() % size == 0)
    found, start = [], 0
    while frame.height - start > 0:
        place = int(np.searchsorted(borders, start + size // 4))
        end = min(int(borders[place]) if place < len(borders) else frame.height, start + 4 * size, frame.height)
        found.append((start, end))
        start = end
    return found


def _rows_per_part(frame: pl.DataFrame) -> int:
    """A power of two, from the types alone."""
    width = sum(_WIDE if dtype.is_nested() or dtype == pl.Binary else 8 for dtype in frame.dtypes)
    return int(min(_MOST, max(_FEWEST, 2 ** int(np.log2(PART_BYTES / max(1, width))))))


def _row(workspace: Workspace, tx: sa.Connection, dataset: str) -> Row | None:
    table = schema.dataset
    return tx.execute(
        sa.select(table).where(table.c.workspace == workspace.store.workspace, table.c.dataset == dataset)
    ).first()
