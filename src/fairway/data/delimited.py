"""CSV files, read strictly: every row has as many fields as the header, or the file is refused with the line.

All values come back as text (an empty field is null): what they mean is the contract's to say.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl

from fairway.errors import DataError

MAX_BYTES = 4 * 2**30  # unpacked; a CSV of this size is better kept as Parquet
_CHUNK_ROWS = 50_000
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_csv(path: Path, *, file: str) -> pl.DataFrame:
    """A CSV (or .csv.gz): UTF-8 with or without BOM, LF or CRLF, commas, quotes doubled inside of quotes.

    Raises: DataError naming file and line for ragged rows, unbalanced quotes, duplicate or missing column names, other
    encodings and other separators.
    """
    data = _bytes(path, file)
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise DataError(f"is {encoding}; save it as UTF-8", file=file)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data:
        raise DataError(f"line {_line_of(data, data.index(0))} holds a NUL byte: this is no text file", file=file)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DataError(
            f"line {_line_of(data, exc.start)} is not UTF-8 (Latin-1 or Windows-1252?); save the file as UTF-8",
            file=file,
        ) from exc
    data = data.rstrip(b"\r\n")
    if not data:
        raise DataError("the file is empty", file=file)
    names = _header(data, file)
    return _quoted(data, names, file) if b'"' in data else _plain(data, names, file)


def _bytes(path: Path, file: str) -> bytes:
    try:
        if path.suffix != ".gz":
            if path.stat().st_size > MAX_BYTES:
                raise DataError(f"is larger than {MAX_BYTES // 2**30} GiB; write it as Parquet", file=file)
            return path.read_bytes()
        with gzip.open(path) as packed:
            data = packed.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile) as exc:
        raise DataError("is cut or no gzip file", file=file) from exc
    except OSError as exc:
        raise DataError(f"can't be read: {exc.strerror or exc}", file=file) from exc
    if len(data) > MAX_BYTES:
        raise DataError(f"unpacks to more than {MAX_BYTES // 2**30} GiB; write it as Parquet", file=file)
    return data


def _line_of(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


def _records(data: bytes, file: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it starts, fields) of every record."""
    reader = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    line = 1
    try:
        for record in reader:
            yield line, record
            line = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(f"line {line}: a quote is opened and not closed in its place ({exc})", file=file) from exc


def _header(data: bytes, file: str) -> list[str]:
    _, names = next(_records(data, file))
    if len(names) == 1:
        for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if mark in names[0]:
                raise DataError(f"the header is one field with {word} in it; fields are separated by commas", file=file)
    refuse_duplicates(names, file)
    return names


def refuse_duplicates(names: list[str], file: str) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in seen:
            raise DataError(f'columns {seen[name]} and {place} are both called "{name}"; names must differ', file=file)
        seen[name] = place


def _ragged(line: int, found: int, names: list[str], file: str) -> DataError:
    return DataError(f"line {line} has {found} fields; the header has {len(names)}", file=file)


def _plain(data: bytes, names: list[str], file: str) -> pl.DataFrame:
    """Without a quote in the file, commas and line ends are all there is to check."""
    commas = len(names) - 1
    for line, text in enumerate(data.split(b"\n"), 1):
        if text.count(b",") != commas or (not text.rstrip(b"\r") and commas):
            raise _ragged(line, text.count(b",") + 1 if text.rstrip(b"\r") else 0, names, file)
    if b"\n" not in data:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    try:
        return pl.read_csv(data, has_header=False, skip_rows=1, new_columns=names, infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as exc:
        raise DataError(f"can't be read as CSV: {str(exc).splitlines()[0]}", file=file) from exc


def _quoted(data: bytes, names: list[str], file: str) -> pl.DataFrame:
    """With quotes, the standard library's strict reader decides what a field is."""
    records = _records(data, file)
    next(records)
    schema = dict.fromkeys(names, pl.String)
    frames = []
    while chunk := list(islice(records, _CHUNK_ROWS)):
        for line, record in chunk:
            if len(record) != len(names):
                raise _ragged(line, len(record), names, file)
        columns = zip(*(record for _, record in chunk), strict=True)
        frames.append(
            pl.DataFrame(
                [
                    pl.Series(name, [v or None for v in values], pl.String)
                    for name, values in zip(names, columns, strict=True)
                ]
            )
        )
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)
