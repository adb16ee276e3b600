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

from fairway.data.source_rows import memory_limit, refuse_many
from fairway.data.source_text import Dialect, encoding_of
from fairway.errors import DataError

MAX_BYTES = 4 * 2**30  # unpacked; text of this size is better kept as Parquet
_CHUNK_ROWS = 50_000
_FIELD_BYTES = 16  # that a field takes in memory at least
_WORDS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def read_csv(path: Path, *, file: str, dialect: Dialect | None = None) -> pl.DataFrame:
    """A CSV (or .csv.gz): with or without BOM, LF or CRLF, quotes doubled in quotes; by default UTF-8 and commas.

    Raises: DataError naming file and line for ragged rows, unbalanced quotes, duplicate or missing column names, and
    for another encoding or separator than the dialect's.
    """
    known = dialect or Dialect()
    data = _utf8(unpacked(path, file), known, file).rstrip(b"\r\n")
    if not data:
        raise DataError("the file is empty", file=file)
    names = _header(data, known, file)
    if known.quote and known.quote.encode() in data:
        return _quoted(data, names, known, file)
    return _plain(data, names, known, file)


def unpacked(path: Path, file: str) -> bytes:
    """A text file's bytes, out of its gzip if it is in one. Raises: DataError: too large, cut or unreadable."""
    most = min(MAX_BYTES, memory_limit() // 4)  # it is decoded and typed next to itself
    try:
        if path.suffix != ".gz":
            if path.stat().st_size > most:
                raise DataError(f"is larger than {most / 2**30:.1f} GiB; write it as Parquet", file=file)
            return path.read_bytes()
        with gzip.open(path) as packed:
            data = packed.read(most + 1)
    except (EOFError, gzip.BadGzipFile) as exc:
        raise DataError("is cut or no gzip file", file=file) from exc
    except OSError as exc:
        raise DataError(f"can't be read: {exc.strerror or exc}", file=file) from exc
    if len(data) > most:
        raise DataError(f"unpacks to more than {most / 2**30:.1f} GiB; write it as Parquet", file=file)
    return data


def _utf8(data: bytes, dialect: Dialect, file: str) -> bytes:
    """The text as UTF-8 without a mark, or a refusal that says which encoding it may be in."""
    encoding = dialect.encoding.lower().replace("_", "-")
    if encoding in ("utf-8", "utf8", "utf-8-sig", "ascii"):
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError('is UTF-16; save it as UTF-8, or declare encoding = "utf-16"', file=file)
        data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\x00" in data:
            raise DataError(f"line {line_of(data, data.index(0))} holds a NUL byte: this is no text file", file=file)
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as exc:
            found = encoding_of(data, whole=True)
            raise DataError(
                f"line {line_of(data, exc.start)} is not UTF-8 (Latin-1 or Windows-1252?); save the file as UTF-8, or "
                f'declare encoding = "{found}"',
                file=file,
            ) from exc
        return data
    if encoding in ("utf-16", "utf16") and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = "has no mark of UTF-16, which is declared; without one, declare utf-16-le or utf-16-be"
        raise DataError(text, file=file)
    try:
        text = data.decode(dialect.encoding)
    except (UnicodeDecodeError, UnicodeError) as exc:
        start = getattr(exc, "start", 0)
        raise DataError(f"line {line_of(data, start)} is not {dialect.encoding}, which is declared", file=file) from exc
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise DataError(f"line {line} holds a NUL character: the file is not {dialect.encoding}", file=file)
    return text.removeprefix("\ufeff").encode()


def line_of(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1


def _records(data: bytes, dialect: Dialect, file: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it starts, fields) of every record."""
    text = io.StringIO(data.decode("utf-8"), newline="")
    mark = dialect.delimiter
    if dialect.quote:
        reader = csv.reader(text, strict=True, delimiter=mark, quotechar=dialect.quote)
    else:
        reader = csv.reader(text, strict=True, delimiter=mark, quoting=csv.QUOTE_NONE)
    line = 1
    try:
        for record in reader:
            yield line, record
            line = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(f"line {line}: a quote is opened and not closed in its place ({exc})", file=file) from exc


def _header(data: bytes, dialect: Dialect, file: str) -> list[str]:
    _, names = next(_records(data, dialect, file))
    if len(names) == 1:
        for mark, word in _WORDS.items():
            if mark in names[0] and mark != dialect.delimiter:
                raise DataError(
                    f"the header is one field with {word} in it; fields are separated by "
                    f"{_WORDS.get(dialect.delimiter, dialect.delimiter)} (or declare delimiter in fairway.toml)",
                    file=file,
                )
    refuse_duplicates(names, file)
    return names


def refuse_duplicates(names: list[str], file: str) -> None:
    """Raises: DataError when two columns have one name."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in seen:
            raise DataError(f'columns {seen[name]} and {place} are both called "{name}"; names must differ', file=file)
        seen[name] = place


def _ragged(line: int, found: int, names: list[str], file: str) -> DataError:
    return DataError(f"line {line} has {found} fields; the header has {len(names)}", file=file)


def _plain(data: bytes, names: list[str], dialect: Dialect, file: str) -> pl.DataFrame:
    """Without a quote in the file, separators and line ends are all there is to check."""
    mark, commas = dialect.delimiter.encode(), len(names) - 1
    rows = data.count(b"\n")
    refuse_many(rows, len(names), file)
    if rows * len(names) * _FIELD_BYTES > memory_limit():
        raise DataError(f"has {rows:,} rows x {len(names):,} fields; this machine has no memory for it", file=file)
    for line, text in enumerate(io.BytesIO(data), 1):  # one at a time: a list of all takes many times the file's size
        if text.count(mark) != commas or (commas and not text.rstrip(b"\r\n")):
            raise _ragged(line, text.count(mark) + 1 if text.rstrip(b"\r\n") else 0, names, file)
    if b"\n" not in data:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    try:
        return pl.read_csv(
            data, has_header=False, skip_rows=1, new_columns=names, infer_schema=False, quote_char=None,
            separator=dialect.delimiter,
        )  # fmt: skip
    except pl.exceptions.PolarsError as exc:
        raise DataError(f"can't be read as CSV: {str(exc).splitlines()[0]}", file=file) from exc


def _quoted(data: bytes, names: list[str], dialect: Dialect, file: str) -> pl.DataFrame:
    """With quotes, the standard library's strict reader decides what a field is."""
    records = _records(data, dialect, file)
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
