"""Views over tables that don't fit into memory: by parts of the entities, from Parquet files to a Parquet file."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fairway.contract.view import ViewSpec
from fairway.data import views
from fairway.data.views import ROW, Schema, Schemas
from fairway.errors import DataError

PART_ROWS = 2_000_000


def compute_files(
    specs: Sequence[ViewSpec],
    rows: Path,
    events: Mapping[str, Path],
    out: Path,
    *,
    at: str,
    event_at: Mapping[str, str],
    schemas: Schemas | None = None,
    part_rows: int = PART_ROWS,
) -> dict[str, Schema]:
    """As `views.look_up`, from and to Parquet: `out` has the rows in their order with each view's columns.

    rows, events: a file each, typed. part_rows: about how many rows and events are held at once; more when one entity
    has more by itself, since an entity is never split. Temporary files of the columns' size lie beside `out`.
    Raises: as `views.compute`; `out` is written whole or not at all.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        found = {}
        for number, view in enumerate(specs):
            place = folder / str(number)
            place.mkdir()
            given = (schemas or {}).get(view.name)
            found[view.name] = _view(view, rows, events, place, at, event_at, given, part_rows)
        chunks = folder / "chunks"
        chunks.mkdir()
        step = max(1, part_rows // 4)
        for start in range(0, max(_height(rows), 1), step):
            made = [pl.scan_parquet(rows).slice(start, step).collect(engine="streaming")]
            for number in range(len(specs)):
                mine = pl.scan_parquet(folder / str(number) / "*.parquet")
                part = mine.filter(pl.col(ROW).is_between(start, start + step, closed="left")).collect(
                    engine="streaming"
                )
                made.append(part.sort(ROW).drop(ROW))
            pl.concat(made, how="horizontal").write_parquet(chunks / f"{start:015}.parquet")
        pl.scan_parquet(chunks / "*.parquet").sink_parquet(folder / "out")
        (folder / "out").rename(out)
        return found
    finally:
        shutil.rmtree(folder)


def _view(
    view: ViewSpec, rows: Path, events: Mapping[str, Path], folder: Path, at: str, event_at: Mapping[str, str],
    schema: Schema | None, part_rows: int,
) -> Schema:  # fmt: skip
    """One view's columns with the rows' numbers, into a file per part of the entities."""
    source = events.get(view.source)
    parts = max(1, -(-max(_height(rows), _height(source) if source is not None else 0) // part_rows))
    asked, happened = folder / "rows", folder / "events"
    _split(rows, asked, view.entity, parts, part_rows, only=[view.entity, at])
    if source is not None:
        _split(source, happened, view.entity, parts, part_rows)
    for part in range(parts):
        mine = _part(asked, part)
        found = {view.source: _part(happened, part)} if source is not None else {}
        given = None if schema is None else {view.name: schema}
        looked, schemas = views.look_up([view], mine, found, at=at, event_at=event_at, schemas=given)
        schema = schemas[view.name]
        looked.select(ROW, *schema).sort(ROW).write_parquet(folder / f"{part:06}.parquet")
    shutil.rmtree(asked)
    shutil.rmtree(happened, ignore_errors=True)
    assert schema is not None
    return schema


def _split(
    path: Path, folder: Path, entity: str, parts: int, part_rows: int, *, only: Sequence[str] | None = None
) -> None:
    """The rows of a file into a folder per part, by a hash of the entity; with `only`, those columns and a number."""
    step = max(1, part_rows // 4)
    for start in range(0, max(_height(path), 1), step):
        scanned = pl.scan_parquet(path)
        frame = (scanned.select(only) if only is not None else scanned).slice(start, step).collect(engine="streaming")
        if only is not None:
            frame = frame.with_columns(pl.int_range(start, start + frame.height, dtype=pl.Int64).alias(ROW))
        if entity not in frame.columns:
            raise DataError(f"{path.name} has no column {entity!r}", file=path.name, column=entity)
        number = frame[entity].cast(pl.String).hash(0) % parts
        for part in range(parts):
            place = folder / f"{part:06}"
            place.mkdir(parents=True, exist_ok=True)
            frame.filter(number == part).write_parquet(place / f"{start:015}.parquet", compression="lz4")


def _part(folder: Path, part: int) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{part:06}" / "*.parquet", glob=True, low_memory=True)


def _height(path: Path) -> int:
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())
