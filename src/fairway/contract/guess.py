"""What type a column has: guessed once by `new`, strictly, and written down for a person to read."""

from dataclasses import dataclass, replace

import polars as pl

from fairway.contract.columns import Column
from fairway.contract.formats import format_of
from fairway.contract.nested import LISTED, as_lists, image
from fairway.contract.parsing import dtype_of, parse, split_time
from fairway.errors import DataError

MAX_CATEGORIES = 255  # what HistGradientBoosting takes in one column
_NULL_WORDS = ("NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "-", "?", ".")
_MIXED = 0.9  # a column that is numbers in this share of its rows is numbers, and the rest are mistakes
_LISTED = 10


@dataclass(frozen=True)
class Guess:
    """column: type, nulls, tokens, zone, categories and seen range. values: typed by it. note: what was decided."""

    column: Column
    values: pl.Series
    note: str = ""


def guess(raw: pl.Series, *, file: str = "") -> Guess | None:
    """The column's type from its values; None for a kind of value that fairway has no type for (durations, ragged
    lists).

    Raises: DataError for a column that mixes numbers with other text, and for infinities, with the first rows.
    """
    name, dtype = raw.name, raw.dtype
    if dtype == pl.Null:
        return _made(raw, Column(name=name, type="string", nulls=True))
    if dtype.is_integer():
        return _made(raw, Column(name=name, type="int"))
    if dtype.is_float() or dtype.is_decimal():
        return _made(raw, Column(name=name, type="float"), file=file)
    if dtype == pl.Boolean:
        return _made(raw, Column(name=name, type="bool"))
    if isinstance(dtype, pl.Datetime):
        naive = dtype.time_zone is None
        return _made(raw, Column(name=name, type="datetime", zone="UTC" if naive else None, assumed=_zone(naive)))
    if dtype == pl.Date:
        return _made(raw, Column(name=name, type="date"))
    if isinstance(dtype, pl.Categorical | pl.Enum):
        raw = raw.cast(pl.String)
    if isinstance(dtype, pl.List | pl.Array):
        return _vector(raw)
    if dtype == pl.Binary or isinstance(dtype, pl.Struct):
        return _image(raw)
    return _text(raw, file) if raw.dtype == pl.String else None


def _vector(raw: pl.Series) -> Guess | None:
    """Lists of numbers, when every one has the same number of them."""
    lists = as_lists(raw)
    if lists is None or lists.null_count() > raw.null_count():
        return None
    lengths = lists.list.len().drop_nulls().unique().to_list()
    if len(lengths) != 1 or not lengths[0]:
        return None
    column = Column(name=raw.name, type="vector", length=int(lengths[0]))
    return None if parse(raw, column).bad.any() else _made(raw, column)


def _image(raw: pl.Series) -> Guess | None:
    """Bytes, with the formats that their beginnings say, when all of them are known ones."""
    values = image(raw).values.drop_nulls()
    if values.is_empty() or image(raw).bad.any():
        return None
    formats = {format_of(value) for value in values}
    longest = int(values.bin.size().max() or 0)  # type: ignore[arg-type]
    known = tuple(sorted(name for name in formats if name)) if None not in formats else ()
    column = Column(name=raw.name, type="image", formats=known)
    if 2 * longest > column.longest:
        column = replace(column, max_length=2 * longest)
    return _made(raw, column)


def _zone(naive: bool) -> tuple[str, ...]:
    return ("zone",) if naive else ()


def _text(raw: pl.Series, file: str) -> Guess:
    """Text of a CSV, or of a Parquet file's string column."""
    name = raw.name
    distinct = raw.drop_nulls().unique()
    if len(distinct) and distinct.str.contains(LISTED).all() and (listed := _vector(raw)) is not None:
        return listed
    blank = list(distinct.filter(distinct.str.strip_chars() == "").sort().to_list())
    words = [v for v in _NULL_WORDS if v in set(distinct.filter(distinct.is_in(_NULL_WORDS)).to_list())]
    for tokens in dict.fromkeys(((), tuple(blank), tuple(blank + words))):
        left = distinct.filter(~distinct.is_in(list(tokens))) if tokens else distinct
        if left.is_empty():
            break
        found = _typed(name, left)
        if found is not None:
            column = Column(
                name=name, type=found.type, null_values=tokens, decimal=found.decimal, zone=found.zone,
                assumed=found.assumed,
            )  # fmt: skip
            return _made(raw, column, note=_token_note(raw, found.type, tokens), file=file)
    _refuse_mixed(raw, distinct, (*blank, *words), file)
    return _category_or_string(raw, distinct, tuple(blank))


def _typed(name: str, values: pl.Series) -> Column | None:
    """The type that every one of these distinct values has."""
    coded = values.str.contains(r"^[+-]?0[0-9]").any()  # "00123" is a code: as a number it would lose its zeros
    candidates = [
        *([] if coded else [Column(name=name, type="int")]),
        *([] if coded else [Column(name=name, type="float"), Column(name=name, type="float", decimal=",")]),
        Column(name=name, type="bool"),
        Column(name=name, type="date"),
    ]
    for column in candidates:
        if column.decimal == "," and values.str.contains(r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$").all():
            continue  # 1,234 may be a thousand
        if not parse(values, column).bad.any():
            return column
    times = split_time(values)
    if times["naive"].null_count() == 0 and times["offset_min"].null_count() in (0, values.len()):
        naive = times["offset_min"].null_count() > 0
        return Column(name=name, type="datetime", zone="UTC" if naive else None, assumed=_zone(naive))
    return None


def _token_note(raw: pl.Series, kind: str, tokens: tuple[str, ...]) -> str:
    if not tokens:
        return ""
    n = int(raw.is_in(list(tokens)).sum())
    blank = all(not t.strip() for t in tokens)
    what = f"{n:,} blank values become null" if blank else f"{n:,} of {', '.join(map(repr, tokens))} become null"
    return f"{raw.name} was text: {what}" if kind in ("int", "float") else f"{raw.name}: {what}"


def _refuse_mixed(raw: pl.Series, distinct: pl.Series, tokens: tuple[str, ...], file: str) -> None:
    """Numbers in nearly every row, and something else in a few: those few are named instead of made text."""
    if distinct.str.contains(r"^[+-]?0[0-9]").any():
        return
    as_number = parse(raw, Column(name=raw.name, type="float", null_values=tokens))
    bad = as_number.bad
    n, good = int(bad.sum()), as_number.values.len() - as_number.values.null_count()
    if not n or good < _MIXED * (good + n):
        return
    places = bad.arg_true()
    rows = ", ".join(str(int(p) + 1) for p in places[:_LISTED])
    row = int(places[0])
    shown = raw[row] if len(raw[row]) <= 40 else raw[row][:37] + "…"
    more = f" ({n:,} such rows: {rows}{', …' if n > _LISTED else ''})" if n > 1 else ""
    raise DataError(
        f'"{shown}" is not a number, and {good / (good + n):.1%} of the column is{more}.\n'
        f"Correct these rows, or replace them by nothing to make them null. {as_number.hint}".rstrip(),
        file=file or None, row=row + 1, column=raw.name,
    )  # fmt: skip


def _category_or_string(raw: pl.Series, distinct: pl.Series, blank: tuple[str, ...]) -> Guess:
    """A category when its values come back; else a string."""
    tokens = blank if len(blank) < distinct.len() else ()
    values = distinct.filter(~distinct.is_in(list(tokens))) if tokens else distinct
    used = raw.len() - raw.null_count()
    note = _token_note(raw, "category", tokens)
    longest = max((len(value) for value in values.to_list()), default=0)
    if 0 < values.len() <= min(MAX_CATEGORIES, max(2, used // 2)) and longest <= 200:
        listed = tuple(values.sort().to_list())
        return _made(raw, Column(name=raw.name, type="category", values=listed, null_values=tokens), note=note)
    column = Column(name=raw.name, type="text" if is_text(values) else "string", null_values=tokens)
    if 2 * longest > column.longest:
        column = replace(column, max_length=2 * longest)
    return _made(raw, column, note=note)


def is_text(values: pl.Series) -> bool:
    """Sentences rather than codes: three words or more in the usual row."""
    some = values.drop_nulls().head(2000)
    found = some.str.count_matches(r"\s+").median() if some.len() else 0
    return isinstance(found, float) and found >= 2


def _made(raw: pl.Series, column: Column, *, note: str = "", file: str = "") -> Guess:
    """The typed values, and from them nulls and the range that was seen."""
    parsed = parse(raw, column)
    if parsed.bad.any():  # only an infinity, or an integer beyond 64 bits, gets here
        row = int(parsed.bad.arg_true()[0])
        raise DataError(f"{raw[row]} is not {parsed.wrong}", file=file or None, row=row + 1, column=raw.name)
    values = parsed.values.alias(raw.name)
    nulls = bool(values.null_count())
    seen = None
    if column.type in ("int", "float") and values.null_count() < len(values):
        seen = (values.min(), values.max())
    elif column.type in ("datetime", "date") and values.null_count() < len(values):
        text = values.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ" if column.type == "datetime" else "%Y-%m-%d")
        seen = (text.min(), text.max())
    elif column.type == "vector" and values.null_count() < len(values):
        seen = (values.arr.min().min(), values.arr.max().max())
    changed = Column(**(vars(column) | {"nulls": nulls, "seen": seen}))
    return Guess(changed, values.cast(dtype_of(changed)), note)
