"""JSON lines: one object per line. Strict: what is no object, or a column of two kinds, is refused by its line."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from fairway.data.delimited import line_of, unpacked
from fairway.data.source_rows import Rows
from fairway.errors import DataError

_CHUNK_LINES = 20_000


def read_json_lines(path: Path, *, file: str) -> pl.DataFrame:
    """A .jsonl or .ndjson file (or .gz of it); a key that a line lacks is null there.

    Raises: DataError with file and line for what is no JSON object, has a key twice, or holds another kind of value
    than the column in other lines.
    """
    data = unpacked(path, file).removeprefix(b"\xef\xbb\xbf")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16; save it as UTF-8", file=file)
    rows = Rows(file, place="line")
    decode = msgspec.json.Decoder().decode
    chunk: list[tuple[int, dict[str, Any]]] = []
    for line, text in _lines(data, file):
        try:
            record = decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise DataError(f"line {line} is no JSON: {exc}", file=file) from exc
        if not isinstance(record, dict):
            raise DataError(f"line {line} is no JSON object", file=file)
        if text.count(b'":') + text.count(b'" :') > len(record):
            _refuse_twice(text, line, file)
        chunk.append((line, record))
        if len(chunk) == _CHUNK_LINES:
            rows.add(chunk)
            chunk = []
    rows.add(chunk)
    frame = rows.frame()
    if not frame.width:
        raise DataError("the file is empty", file=file)
    return frame


def _lines(data: bytes, file: str) -> Iterator[tuple[int, bytes]]:
    start = 0
    line = 0
    if b"\x00" in data:
        raise DataError(f"line {line_of(data, data.index(0))} holds a NUL byte: this is no text file", file=file)
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line += 1
        text = data[start:end].strip()
        if text:
            yield line, text
        start = end + 1


def _refuse_twice(text: bytes, line: int, file: str) -> None:
    """The decoder keeps the last of equal keys silently."""

    def pairs(found: list[tuple[str, Any]]) -> None:
        twice = [name for name, n in Counter(name for name, _ in found).items() if n > 1]
        if twice:
            raise DataError(f'line {line} has the key "{twice[0]}" twice', file=file)

    json.loads(text, object_pairs_hook=pairs)
