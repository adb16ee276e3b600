"""The table as it was delivered, from wherever it is: read as a whole or refused, with a hash of what was read."""

import gzip
import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from fairway import fingerprint
from fairway.contract.settings import DataSettings, SourceSettings
from fairway.data import source_delta, source_files, source_rows, source_s3, source_sql
from fairway.data.identity import content_hash
from fairway.data.source_text import Dialect, detect
from fairway.errors import DataError, SettingsError

_QUERY = "the query"
PLAIN = Dialect()


@dataclass(frozen=True)
class Raw:
    """frame: values as the source has them (CSV: all text). files: shown path -> SHA-256. rows: per file, in order.

    pinned: what else says which table it was, such as the version of a Delta table.
    """

    frame: pl.DataFrame
    files: dict[str, str]
    rows: tuple[int, ...]
    pinned: dict[str, Any] = field(default_factory=dict)

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

    @property
    def content(self) -> str:
        """One hash over all that was read."""
        return fingerprint.of_value({"files": self.files, "pinned": self.pinned})


@dataclass(frozen=True)
class Place:
    """Where a table is, of [data] or [sources.NAME] alike. field: what messages call the setting."""

    at: str | None
    sql: str | None = None
    url: str | None = None
    version: int | None = None
    dialect: Dialect = PLAIN
    field: str = "data.source"

    @classmethod
    def of(cls, settings: DataSettings | SourceSettings | str | Path, *, field: str = "") -> "Place":
        """From settings, or from a path or address alone."""
        if isinstance(settings, str | Path):
            return cls(str(settings), field=field or "data.source")
        at = settings.source if isinstance(settings, DataSettings) else settings.path
        name = field or ("data" if isinstance(settings, DataSettings) else "sources")
        return cls(at, settings.sql, settings.url, settings.version, Dialect.of(settings), name)

    @property
    def identity(self) -> str:
        """Changes when the settings mean another table, not when the table itself changes."""
        said = [self.at, self.sql, self.url if self.sql else None]
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def read_table(source: Place | DataSettings | SourceSettings | str | Path, root: Path) -> Raw:
    """The table: one file or query, or all files of a folder or glob, in order of their names.

    root: the folder that relative paths start from. Raises: DataError (which file, and where in it), SettingsError.
    """
    place = source if isinstance(source, Place) else Place.of(source)
    if place.sql is not None:
        url = source_sql.resolve_url(place.url or "", root, field=place.field)
        frame = source_sql.read_query(place.sql, url, file=_QUERY)
        return Raw(frame, {_QUERY: content_hash(frame)}, (frame.height,), {"sql": place.sql})
    assert place.at is not None
    _refuse_unknown(place)
    if _is_delta(place.at, root):
        return _delta(place, place.at, root)
    if place.version is not None:
        raise SettingsError(f"version is for a Delta table, and {place.at} is none", file="fairway.toml",
                            field=place.field)  # fmt: skip
    read, hashes = [], {}
    if place.at.startswith("s3://"):
        for name, facts in source_s3.find(place.at).items():
            with source_s3.fetched(place.at, name, facts) as path:
                hashes[name] = fingerprint.of_file(path)
                read.append(_read(path, name, place.dialect))
            _refuse_many(read, name)
    else:
        for name, path in source_files.find(place.at, root).items():
            frame, hashes[name] = source_files.read_unchanged(path, name, partial(_read, path, name, place.dialect))
            read.append(frame)
            _refuse_many(read, name)
    return Raw(_together(read, list(hashes)), hashes, tuple(frame.height for frame in read))


def change_mark(source: DataSettings | SourceSettings, root: Path) -> Any:
    """JSON that differs when the table has changed, without reading it; None where only reading tells (a query)."""
    place = Place.of(source)
    if place.at is None:
        return None
    if _is_delta(place.at, root):
        where, options = _where(place.at, root)
        return place.version if place.version is not None else source_delta.newest_version(where, options=options)
    if place.at.startswith("s3://"):
        return [[name, facts["e_tag"], facts["size"]] for name, facts in source_s3.find(place.at).items()]
    return source_files.stamp(source_files.find(place.at, root))


def with_dialect(place: Place, root: Path) -> Place:
    """The place with the dialect of its (first) CSV file found out; others are what they are."""
    at = place.at
    if at is None or _is_delta(at, root):
        return place
    if at.startswith("s3://"):
        name, facts = next(iter(source_s3.find(at).items()))
        if source_files.kind_of(name) != "CSV":
            return place
        with source_s3.fetched(at, name, facts) as path:
            return replace(place, dialect=detect(*_beginning(path)))
    path = next(iter(source_files.find(at, root).values()))
    return replace(place, dialect=detect(*_beginning(path))) if source_files.kind_of(path.name) == "CSV" else place


def _beginning(path: Path) -> tuple[bytes, bool]:
    size = 2**20
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(size)
    except (OSError, EOFError):
        return b"", True  # the reader itself says what is wrong with the file
    return data, len(data) < size


def _read(path: Path, file: str, dialect: Dialect) -> pl.DataFrame:
    return source_files.read_file(path, file, dialect)


def _refuse_unknown(place: Place) -> None:
    if "://" in str(place.at) and not str(place.at).startswith("s3://"):
        raise SettingsError(
            f"{place.at} is an address of a kind that is not read; tables are read from files, s3:// and queries",
            file="fairway.toml", field=place.field,
        )  # fmt: skip


def _is_delta(text: str, root: Path) -> bool:
    if text.startswith("s3://"):
        return source_s3.is_delta(text)
    return ((root / text) / "_delta_log").is_dir()


def _where(text: str, root: Path) -> tuple[str, dict[str, str] | None]:
    if text.startswith("s3://"):
        return text, source_s3.storage_options()
    return str((root / text).resolve()), None


def _delta(place: Place, text: str, root: Path) -> Raw:
    where, options = _where(text, root)
    name = text.rstrip("/").rsplit("/", 1)[-1]
    frame, version, digest = source_delta.read_delta(where, file=name, version=place.version, options=options)
    return Raw(frame, {name: digest}, (frame.height,), {"delta_version": version})


def _refuse_many(frames: list[pl.DataFrame], file: str) -> None:
    source_rows.refuse_many(sum(frame.height for frame in frames), frames[0].width, f"the table up to {file}")


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
