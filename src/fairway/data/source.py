"""The table as it was delivered: Parquet or CSV files, read as a whole or refused, with the hash of every file."""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import polars as pl

from fairway import fingerprint
from fairway.contract.settings import DataSettings
from fairway.data.delimited import read_csv, refuse_duplicates
from fairway.errors import DataError, SettingsError

MAX_CELLS = 1_000_000_000  # rows x columns: past this the table would not fit into a laptop's memory
_KINDS = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True)
class Raw:
    """frame: values as the files have them (CSV: all text). files: shown path -> SHA-256. rows: per file, in order."""

    frame: pl.DataFrame
    files: dict[str, str]
    rows: tuple[int, ...]

    def locate(self, index: int) -> tuple[str, int]:
        """The file of a row, and its number in that file, counted from 1."""
        start = 0
        for file, end in zip(self.files, accumulate(self.rows), strict=True):
            if index < end:
                return file, index - start + 1
            start = end
        raise IndexError(index)

    @property
    def name(self) -> str:
        """What messages about the table as a whole call it."""
        return next(iter(self.files)) if len(self.files) == 1 else f"{len(self.files)} files"


def read_table(source: DataSettings | str | Path, root: Path) -> Raw:
    """The training table: one file, or all Parquet (or all CSV) files of a folder, in order of their names.

    root: the folder that relative paths start from. Raises: DataError (which file, and where in it), SettingsError.
    """
    if isinstance(source, DataSettings):
        if source.sql is not None:
            raise SettingsError(
                "data.sql is not supported yet: write the query's result to a Parquet file and give it as data.source",
                file="fairway.toml", field="data.sql",
            )  # fmt: skip
        assert source.source is not None
        source = source.source
    text = str(source)
    if "://" in text:
        raise SettingsError(
            f"data.source {text} is an address; this version reads files and folders of this machine",
            file="fairway.toml", field="data.source",
        )  # fmt: skip
    path = (root / text).resolve()
    files = _files(path)
    shown = {str(file.relative_to(path.parent)) if path.is_dir() else file.name: file for file in files}
    hashes, frames = {}, []
    for name, file in shown.items():
        before = fingerprint.of_file(file)
        frames.append(_read(file, name))
        if fingerprint.of_file(file) != before:
            raise DataError("was replaced or changed while it was read; nothing was kept, try again", file=name)
        hashes[name] = before
    return Raw(_together(frames, list(shown)), hashes, tuple(frame.height for frame in frames))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if not path.name.endswith(_KINDS):
            raise DataError(f"is none of the kinds that can be read: {', '.join(_KINDS)}", file=path.name)
        return [path]
    if not path.exists():
        raise DataError(f"there is no such file or folder (looked in {path.parent})", file=path.name)
    if (path / "_delta_log").is_dir():
        raise DataError("is a Delta table; this version reads Parquet and CSV files", file=path.name)
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(_KINDS) and not p.name.startswith("."))
    kinds = {".parquet" if p.name.endswith(".parquet") else ".csv" for p in found}
    if not found:
        raise DataError(f"the folder holds no file of {', '.join(_KINDS)}", file=path.name)
    if len(kinds) > 1:
        raise DataError("the folder mixes Parquet and CSV files; keep one kind", file=path.name)
    return found


def _read(path: Path, file: str) -> pl.DataFrame:
    return _read_parquet(path, file) if path.name.endswith(".parquet") else read_csv(path, file=file)


def _read_parquet(path: Path, file: str) -> pl.DataFrame:
    try:
        with path.open("rb") as handle:
            head = handle.read(4)
            handle.seek(0, 2)
            size = handle.tell()
            handle.seek(max(0, size - 4))
            tail = handle.read(4)
        if head != b"PAR1" or tail != b"PAR1":
            what = "is cut short: its end is missing" if head == b"PAR1" else "is no Parquet file"
            raise DataError(what, file=file)
        scan = pl.scan_parquet(path, glob=False)
        names = scan.collect_schema().names()
        refuse_duplicates(names, file)
        rows = int(scan.select(pl.len()).collect().item())
        if rows * len(names) > MAX_CELLS:
            raise DataError(
                f"has {rows:,} rows x {len(names):,} columns; at most {MAX_CELLS:,} values are read", file=file
            )
        return pl.read_parquet(path, glob=False, memory_map=False)
    except OSError as exc:
        raise DataError(f"can't be read: {exc.strerror or exc}", file=file) from exc
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        raise DataError(f"can't be read as Parquet: {str(exc).splitlines()[0]}", file=file) from exc


def _together(frames: list[pl.DataFrame], files: list[str]) -> pl.DataFrame:
    """All files as one table: the same columns everywhere, by name."""
    first = frames[0]
    for frame, file in zip(frames[1:], files[1:], strict=True):
        missing = [n for n in first.columns if n not in frame.columns]
        extra = [n for n in frame.columns if n not in first.columns]
        if missing or extra:
            said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
            raise DataError(f"{' and '.join(said)}, compared with {files[0]}", file=file)
        for name, dtype in frame.schema.items():
            if dtype != first.schema[name]:
                raise DataError(f"is {dtype}; in {files[0]} it is {first.schema[name]}", file=file, column=name)
    return pl.concat([frame.select(first.columns) for frame in frames]) if len(frames) > 1 else first
