"""Views over tables that don't fit into memory: by parts of the entities, from Parquet files to a Parquet file."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fairway.contract.view import ViewSpec
from fairway.data import views
from fairway.data.views import ROW, Schema, Schemas

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
        for start in range(0, max(_height(rows), 1), part_rows):
            made = [pl.scan_parquet(rows).slice(start, part_rows).collect()]
            for number in range(len(specs)):
                mine = pl.scan_parquet(folder / str(number) / "*.parquet")
                part = mine.filter(pl.col(ROW).is_between(start, start + part_rows, closed="left")).collect()
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
    n = max(_height(rows), _height(events[view.source])) if view.source in events else 1
    parts = max(1, -(-n // part_rows))
    for part in range(parts):
        mine = pl.col(view.entity).cast(pl.String).hash(0) % parts == part
        asked = (
            pl.scan_parquet(rows).select(view.entity, at).with_row_index(ROW).filter(mine).collect(engine="streaming")
        )
        found = {
            name: pl.scan_parquet(path).filter(mine).collect(engine="streaming")
            for name, path in events.items()
            if name == view.source
        }
        looked, schemas = views.look_up(
            [view], asked, found, at=at, event_at=event_at, schemas=None if schema is None else {view.name: schema}
        )
        schema = schemas[view.name]
        looked.select(pl.col(ROW).cast(pl.Int64), *schema).sort(ROW).write_parquet(folder / f"{part:06}.parquet")
    assert schema is not None
    return schema


def _height(path: Path) -> int:
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())
