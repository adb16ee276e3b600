"""Finding one entity in what is stored, and writing it again without: frames, held-out samples, JSON and text. Pure."""

import html
import io
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import polars as pl

from fairway.data.log import hashed

ERASED = "[erased]"
_SHORTEST = 4  # characters of a value that is looked for inside of longer text; shorter ones would hit too much


class Person:
    """One entity: the value as text, and the forms in which a log may keep it."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.forms = frozenset((value, str(hashed(value))))
        forms = {value, html.escape(value), value.replace("\\", "\\\\").replace('"', '\\"')}
        self._pattern = re.compile(
            "|".join(rf"(?<!\w){re.escape(form)}(?!\w)" for form in sorted(forms, key=len, reverse=True))
        )
        self.in_text = len(value) >= _SHORTEST

    def mask(self, frame: pl.DataFrame, columns: Collection[str]) -> pl.Series:
        """Which rows are about the entity, by any of the columns; numbers are compared as text."""
        found = pl.repeat(False, frame.height, eager=True, dtype=pl.Boolean)
        for name in columns:
            if name in frame.columns and not frame[name].dtype.is_nested() and frame[name].dtype != pl.Binary:
                found = found | frame[name].cast(pl.String, strict=False).is_in(list(self.forms)).fill_null(False)
        return found

    def is_in(self, text: str) -> bool:
        """Whether text names the entity, as a word of its own."""
        return self.in_text and self._pattern.search(text) is not None

    def scrub(self, value: Any) -> Any:
        """JSON without the entity: equal text always, and longer text where the value is long enough to be told."""
        if isinstance(value, str):
            if value in self.forms:
                return ERASED
            return self._pattern.sub(ERASED, value) if self.in_text else value
        if isinstance(value, Mapping):
            return {self.scrub(key): self.scrub(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.scrub(item) for item in value]
        return value

    def scrub_bytes(self, data: bytes) -> bytes:
        """A text file without the entity; what is no UTF-8 stays as it is."""
        if not self.in_text:
            return data
        try:
            return self._pattern.sub(ERASED, data.decode()).encode()
        except UnicodeDecodeError:
            return data


def parquet_without(data: bytes, person: Person, columns: Collection[str], ids: Collection[str] = ()) -> "Rewritten":
    """A Parquet file without the rows about the entity, or with the prediction ids."""
    frame = pl.read_parquet(io.BytesIO(data))
    mask = person.mask(frame, columns)
    if ids and "prediction_id" in frame.columns:
        mask = mask | frame["prediction_id"].is_in(list(ids))
    gone = frame.filter(mask)
    if not gone.height:
        return Rewritten(None, frame.height, 0, ())
    kept = frame.filter(~mask)
    buffer = io.BytesIO()
    kept.write_parquet(buffer, compression="zstd", compression_level=1, statistics=False)
    found = tuple(gone["prediction_id"].to_list()) if "prediction_id" in gone.columns else ()
    return Rewritten(buffer.getvalue(), kept.height, gone.height, found)


class Rewritten(msgspec.Struct, frozen=True):
    """data: the new file; None when nothing had to go. rows: that it holds. gone: rows that it no longer holds. ids: of
    the predictions among those."""

    data: bytes | None
    rows: int
    gone: int
    ids: tuple[str, ...]


def heldout_without(data: bytes, person: Person, column: str) -> tuple[bytes, int]:
    """A package's held-out sample (see `runtime.package.build`) without the entity's rows; how many those were."""
    sample: dict[str, Any] = msgspec.msgpack.decode(data)
    keep = [not _about(sample, place, person, column) for place in range(len(sample["rows"]))]
    if all(keep):
        return data, 0
    size = len(keep)
    kept = {
        name: [item for item, stays in zip(values, keep, strict=True) if stays]
        if isinstance(values, list) and len(values) == size
        else values
        for name, values in sample.items()
    }
    return msgspec.msgpack.encode(kept), keep.count(False)


def _about(sample: Mapping[str, Any], place: int, person: Person, column: str) -> bool:
    row = sample["rows"][place]
    if _same(row.get(column) if isinstance(row, Mapping) else None, person):
        return True
    events = (sample.get("events") or [None] * (place + 1))[place]
    return _named(events, person, column)


def _named(value: Any, person: Person, column: str) -> bool:
    """Whether the column holds the entity anywhere in nested events (rows, or columns of lists)."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            items = item if isinstance(item, list) else [item]
            if key == column and any(_same(one, person) for one in items):
                return True
            if any(isinstance(one, Mapping | list) and _named(one, person, column) for one in items):
                return True
        return False
    return isinstance(value, list) and any(_named(item, person, column) for item in value)


def _same(value: Any, person: Person) -> bool:
    return value is not None and str(value) in person.forms
