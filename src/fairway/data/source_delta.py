"""Delta tables: one version of one, read whole."""

from typing import Any

import polars as pl

from fairway import _optional, fingerprint
from fairway.data.delimited import refuse_duplicates
from fairway.data.source_rows import memory_limit, plain_texts, refuse_many
from fairway.errors import DataError


def read_delta(
    place: str, *, file: str, version: int | None, options: dict[str, str] | None = None
) -> tuple[pl.DataFrame, int, str]:
    """The table at a version (default: its newest), which version that was, and a hash over its list of files.

    A version never changes: its files are listed in the table's log, and are never written again.
    Raises: DataError; MissingExtra without deltalake.
    """
    module = _optional.need("deltalake", extra="delta")
    errors = _optional.need("deltalake.exceptions", extra="delta")
    try:
        table = module.DeltaTable(place, version=version, storage_options=options)
        found = int(table.version())
        _refuse_large(table, file)
        frame = pl.scan_delta(table, storage_options=options).collect()
        listed = sorted(str(uri) for uri in table.file_uris())
        digest = fingerprint.of_value({"id": str(table.metadata().id), "version": found, "files": listed})
    except (errors.DeltaError, OSError, FileNotFoundError) as exc:
        asked = f" at version {version}" if version is not None else ""
        raise DataError(f"can't be read as a Delta table{asked}: {_first(exc)}", file=file) from exc
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        raise DataError(f"can't be read as a Delta table: {_first(exc)}", file=file) from exc
    refuse_duplicates(frame.columns, file)
    return plain_texts(frame, file), found, digest


def newest_version(place: str, *, options: dict[str, str] | None = None) -> int:
    """Raises: DataError."""
    module = _optional.need("deltalake", extra="delta")
    errors = _optional.need("deltalake.exceptions", extra="delta")
    try:
        return int(module.DeltaTable(place, storage_options=options).version())
    except (errors.DeltaError, OSError) as exc:
        raise DataError(f"can't be read as a Delta table: {_first(exc)}", file=place) from exc


def _refuse_large(table: Any, file: str) -> None:
    """By the log's own figures, before any file is opened."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    width = len(table.schema().fields)
    rows = int(actions["num_records"].sum()) if "num_records" in actions.columns else 0
    size = int(actions["size_bytes"].sum()) if "size_bytes" in actions.columns else 0
    refuse_many(rows, width, file)
    if size > memory_limit():
        found = f"{size / 2**30:,.1f} GiB of files"
        raise DataError(f"has {found}; that is more than half of this machine's memory", file=file)


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
