"""Decoding of what callers send: predictions, source events, feedback. Loads neither polars nor numpy.

A contract compiles to one msgspec struct, which validates while it decodes. Three things msgspec does not see are
added: duplicate keys (it keeps the last one silently), values that are text on the wire (times, categories), and the
flags of a row. Whatever it refuses is read again by `contract.careful`, which says what is wrong and where.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fairway import clock
from fairway.contract import careful
from fairway.contract.careful import ABSENT, Field, check_request_id, refuse
from fairway.contract.classes import class_name, class_names
from fairway.contract.columns import Column, Contract
from fairway.contract.comparison import RowRule, holds, read_rule
from fairway.contract.settings import Settings
from fairway.errors import RequestError

MAX_BODY = 10 * 2**20
MAX_ROWS = careful.MAX_ROWS
T = TypeVar("T")
_LOW_US, _HIGH_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
_ESCAPED_COLON = b"\\u003"  # also digits and ; < = > ?: rare enough to take the slow way


@dataclass(frozen=True, slots=True)
class Decoded:
    """One request. columns: wire values by name (`at` is not among them): categories and dates as text, times in us.

    ats: what the caller said about the prediction time, us, None where nothing. flags: per row "unseen:COLUMN",
    "out_of_seen:COLUMN", "null:COLUMN". n: rows, at least 1.
    """

    request_id: str | None
    columns: dict[str, list[Any]]
    flags: list[list[str]]
    ats: list[int | None]
    n: int


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became known about one prediction. name: the target, or a reward's. value: a class in the column's own
    type, or a finite number. at: event time, us, when given. event: the caller's id of this message, when given."""

    id: str
    name: str
    value: Any
    at: int | None
    event: str | None


class RequestDecoder:
    """Decodes the body of POST /v1/models/{name}/predict: {"rows": [{column: value}], "request_id": optional}.

    Reusable and without state. Compiled once per contract: a millisecond.
    """

    def __init__(self, contract: Contract, settings: Settings) -> None:
        at_allowed = settings.endpoint.at_from_caller
        self._at = settings.at if at_allowed else None
        self.columns = tuple(c for c in contract.request_columns if c.role != "at")
        at = tuple(c for c in contract.request_columns if c.role == "at") if at_allowed else ()
        refused = {}
        for column in contract.columns:
            if column.role == "at" and not at_allowed:
                reason = "this endpoint takes the time of the request; set endpoint.at_from_caller to allow it"
                refused[column.name] = ("at_not_allowed", reason)
            elif column not in self.columns and column not in at:
                what = "the target" if column.role == "target" else f"known = {column.known}"
                refused[column.name] = ("unknown_field", f"is not part of a request ({what})")
        self._reader = _RowReader(self.columns, at, refused)
        carried = {c.name for c in (*self.columns, *at)}
        read = [read_rule(rule, contract.columns) for rule in contract.rules]
        self._rules = [rule for rule in read if carried.issuperset(rule.columns)]

    def decode(self, body: bytes) -> Decoded:
        """Raises: RequestError 400 (not JSON), 413 (too large), 422 (with the field, such as rows[0].tenure)."""
        request_id, columns, flags, n = self._reader.read(body)
        for rule in self._rules:
            _keep(rule, columns, n)
        ats = columns.pop(self._at) if self._at is not None else None
        return Decoded(request_id, columns, flags, ats if ats is not None else [None] * n, n)


def _keep(rule: RowRule, columns: dict[str, list[Any]], n: int) -> None:
    """A rule over the columns of each row. What is looked up or known later is not in a request: its rules are not."""
    values = [columns[name] for name in rule.columns]
    for place in range(n):
        row = dict(zip(rule.columns, (column[place] for column in values), strict=True))
        if not holds(rule, row):
            where = f" where {rule.rule.when}" if rule.rule.when else ""
            refuse(
                f"breaks rule {rule.rule.name}: {rule.rule.check}{where}",
                code="rule_broken", field=f"rows[{place}].{rule.check.left.name}",
            )  # fmt: skip


def compile_request(contract: Contract, settings: Settings) -> RequestDecoder:
    """The decoder of a model's requests. `at` is taken only where settings.endpoint.at_from_caller."""
    return RequestDecoder(contract, settings)


def decode_source(columns: Sequence[Column], body: bytes) -> list[dict[str, Any]]:
    """Rows of POST /v1/sources/{name}, {"rows": [{column: value}]}, as wire values. Raises: RequestError."""
    _, found, _, n = _source_reader(tuple(columns)).read(body)
    names = list(found)
    if not names:
        return [{} for _ in range(n)]
    return [dict(zip(names, row, strict=True)) for row in zip(*found.values(), strict=True)]


@lru_cache(maxsize=256)
def _source_reader(columns: tuple[Column, ...]) -> "_RowReader":
    return _RowReader(columns, (), {})


# -- rows ------------------------------------------------------------------------------------------------------------


class _RowReader:
    """Reads {"rows": [...]} with typed columns. `optional` columns may be absent whatever their nulls say."""

    def __init__(
        self, columns: Sequence[Column], optional: Sequence[Column], refused: dict[str, tuple[str, str]]
    ) -> None:
        self._columns = (*columns, *optional)
        self._refused = refused
        self._fields = tuple(
            Field.of(c, required=False, nulls=True) if c in optional else Field.of(c) for c in self._columns
        )
        self._finish = [_finisher(c, flags=c.role == "feature") for c in self._columns]
        self._decoder = _compile(self._fields)
        self._key_colons = [1 + f.name.count(":") for f in self._fields]
        # An image's base64 text holds no colon.
        plain = ("int", "float", "bool", "vector", "image")
        self._text_places = [place for place, f in enumerate(self._fields) if f.type not in plain]

    def read(self, body: bytes) -> tuple[str | None, dict[str, list[Any]], list[list[str]], int]:
        if len(body) > MAX_BODY:
            refuse(f"the body has {len(body):,} bytes; at most {MAX_BODY:,}", code="too_large", status=413)
        request_id, rows = self._fast(body) or self._careful(body)
        n = len(rows)
        flags: list[list[str]] = [[] for _ in range(n)]
        columns: dict[str, list[Any]] = {}
        for column, finish, values in zip(self._columns, self._finish, zip(*rows, strict=True), strict=True):
            columns[column.name] = finish(values, flags)
        return request_id, columns, flags, n

    def _fast(self, body: bytes) -> tuple[str | None, list[tuple[Any, ...]]] | None:
        """None where the careful reader must look: a refusal to explain, or perhaps a duplicate key."""
        if self._decoder is None or _ESCAPED_COLON in body:
            return None
        try:
            found = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        rows = [msgspec.structs.astuple(row) for row in found.rows]
        if not rows:
            return None
        if body.count(b":") != self._colons(found.request_id, rows):
            return None
        request_id = None if found.request_id is UNSET else check_request_id(found.request_id)
        return request_id, rows

    def _colons(self, request_id: Any, rows: list[tuple[Any, ...]]) -> int:
        """How many colons a body without duplicate keys has: one per key, and those inside of names and texts."""
        n = 1 + (0 if request_id is UNSET else 1 + request_id.count(":"))
        for place, colons in enumerate(self._key_colons):
            n += colons * sum(row[place] is not UNSET for row in rows)
        for place in self._text_places:
            n += sum(row[place].count(":") for row in rows if isinstance(row[place], str))
        return n

    def _careful(self, body: bytes) -> tuple[str | None, list[tuple[Any, ...]]]:
        top, rows = careful.read_rows(body, self._fields, ("request_id",), self._refused)
        return check_request_id(top["request_id"]) if "request_id" in top else None, rows


def _compile(fields: tuple[Field, ...]) -> Any:
    """The msgspec decoder; None when a column's name can't be a member's name there (quotes, control characters)."""
    if any(ord(c) < 32 or c in '"\\' for f in fields for c in f.name):
        return None
    members: list[Any] = []
    for place, field in enumerate(fields):
        kind = _wire_type(field)
        if field.nulls:
            kind = kind | None
        # Struct fields without a default must come first in msgspec: keyword-only lifts that.
        members.append((f"c{place}", kind) if field.required else (f"c{place}", kind | UnsetType, UNSET))
    rename = {f"c{place}": field.name for place, field in enumerate(fields)}
    row = msgspec.defstruct("Row", members, rename=rename, forbid_unknown_fields=True, kw_only=True, gc=False)
    rows = Annotated[list[row], Meta(max_length=MAX_ROWS)]  # type: ignore[valid-type]
    body = msgspec.defstruct(
        "Body", [("rows", rows), ("request_id", str | UnsetType, UNSET)], forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(body)


def _wire_type(field: Field) -> Any:
    if field.type == "int":
        low = careful.INT64_LOW if field.low is None else max(careful.INT64_LOW, _ceil(field.low))
        high = careful.INT64_HIGH if field.high is None else min(careful.INT64_HIGH, int(field.high // 1))
        return Annotated[int, Meta(ge=low, le=high)]
    if field.type == "float":
        return _number(field)
    if field.type == "bool":
        return bool
    if field.type == "vector":
        number: Any = _number(field)
        return Annotated[list[number], Meta(min_length=field.length, max_length=field.length)]
    if field.type == "image":
        return Annotated[bytes, Meta(max_length=field.max_length)]  # msgspec reads base64
    return Annotated[str, Meta(max_length=field.max_length)]


def _number(field: Field) -> Any:
    return float if field.low is None and field.high is None else Annotated[float, Meta(ge=field.low, le=field.high)]


def _ceil(value: float) -> int:
    return -int(-value // 1)


# -- from wire text to wire values, with flags -----------------------------------------------------------------------

Finish = Callable[[Sequence[Any], list[list[str]]], list[Any]]


def _finisher(column: Column, *, flags: bool) -> Finish:
    """The function that turns one column's decoded values into wire values and flags its rows."""
    convert = _converter(column)
    seen = _bounds(column, column.seen) if flags else None
    out, null = f"out_of_seen:{column.name}", f"null:{column.name}"
    tokens = frozenset(column.null_values) if column.type in ("string", "text", "category") else frozenset()
    vector = column.type == "vector"

    def finish(values: Sequence[Any], marks: list[list[str]]) -> list[Any]:
        result: list[Any] = []
        for place, value in enumerate(values):
            if value is None or value is UNSET or value is ABSENT or (tokens and value in tokens):
                if tokens and value in tokens and not column.nulls:
                    refuse("stands for null, which is not allowed here", code="wrong_type", field=_path(place, column))
                if flags:
                    marks[place].append(null)
                result.append(None)
                continue
            if convert is not None:
                value = convert(value, place, marks)
            if seen is not None and value is not None:
                low, high = (min(value), max(value)) if vector else (value, value)
                if not (seen[0] <= low and high <= seen[1]):
                    marks[place].append(out)
            result.append(value)
        return result

    return finish


def _path(place: int, column: Column) -> str:
    return f"rows[{place}].{column.name}"


def _converter(column: Column) -> Callable[[Any, int, list[list[str]]], Any] | None:
    if column.type == "category":
        return _category(column)
    if column.type == "image" and column.formats:
        return lambda value, place, _: careful.check_format(column.formats, value, _path(place, column))
    if column.pattern is not None:
        return _pattern(column, column.pattern)
    if column.type == "datetime":
        bounds = _bounds(column, column.range)

        def to_us(value: str, place: int, _: list[list[str]]) -> int:
            return within(moment_us(value, _path(place, column)), bounds, value, _path(place, column))

        return to_us
    if column.type == "date":
        limits = _bounds(column, column.range)

        def to_date(value: str, place: int, _: list[list[str]]) -> str:
            return within(day_text(value, _path(place, column)), limits, value, _path(place, column))

        return to_date
    return None


def _pattern(column: Column, pattern: str) -> Callable[[Any, int, list[list[str]]], str]:
    whole = re.compile(pattern)

    def match(value: str, place: int, _: list[list[str]]) -> str:
        if whole.fullmatch(value) is None:
            text = f"{careful.shown(value)} does not match the declared pattern {pattern}"
            refuse(text, code="wrong_pattern", field=_path(place, column))
        return value

    return match


def _category(column: Column) -> Callable[[Any, int, list[list[str]]], str | None]:
    known, mark = frozenset(column.values), f"unseen:{column.name}"
    reject = column.unseen == "reject"

    def look(value: str, place: int, marks: list[list[str]]) -> str | None:
        if value in known:
            return value
        if reject:
            short = careful.shown(value)
            refuse(f"{short} is none of the declared values", code="unseen_category", field=_path(place, column))
        marks[place].append(mark)
        return None

    return look


def _bounds(column: Column, ends: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
    """The ends of a range as wire values: times in us, dates as ISO text (which orders like dates)."""
    if ends is None or column.type not in ("int", "float", "vector", "datetime", "date"):
        return None
    if column.type == "datetime":
        low, high = (None if end is None else clock.to_us(clock.parse_iso(end)) for end in ends)
        return low, high
    return ends


def within(value: T, bounds: tuple[Any, Any] | None, given: str, path: str) -> T:
    """Raises: RequestError for a time outside the declared range."""
    low, high = bounds or (None, None)
    if (low is not None and value < low) or (high is not None and value > high):
        refuse(f'"{given}" is outside the declared range', code="out_of_range", field=path)
    return value


def moment_us(text: str, path: str) -> int:
    """Microseconds since 1970 UTC of an ISO time with a zone. Raises: RequestError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        refuse(f"{careful.shown(text)} is no ISO 8601 time such as 2014-05-01T06:30:00Z", code="wrong_type", field=path)
    if at.tzinfo is None:
        refuse(f'"{text[:40]}" has no time zone; add Z or an offset', code="no_time_zone", field=path)
    us = clock.to_us(at)
    if not _LOW_US <= us <= _HIGH_US:
        refuse(f'"{text[:40]}" is outside the years 1 to 9999 in UTC', code="out_of_range", field=path)
    return us


def day_text(text: str, path: str) -> str:
    """The date as YYYY-MM-DD. Raises: RequestError."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        refuse(f"{careful.shown(text)} is no ISO date such as 2014-05-01", code="wrong_type", field=path)


# -- feedback --------------------------------------------------------------------------------------------------------


def decode_feedback(settings: Settings, contract: Contract, body: bytes) -> list[Feedback]:
    """Labels and rewards of POST /v1/feedback: one object, or {"rows": [objects]}.

    An object has id and label, and optionally at (ISO with a zone), event and name (the target unless given; another
    name is a reward: a number or true/false). Raises: RequestError 422 wrong_type, unknown_class, not_finite, ….
    """
    if len(body) > MAX_BODY:
        refuse(f"the body has {len(body):,} bytes; at most {MAX_BODY:,}", code="too_large", status=413)
    value = careful.parse(body)
    if isinstance(value, list) and any(isinstance(pair, tuple) and pair[0] == "rows" for pair in value):
        rows = careful.as_object(value, "", ("rows",))["rows"]
        if not careful.is_array(rows):
            refuse(f"expected array, got {careful.shown(rows)}", code="wrong_type", field="rows")
        careful.check_count(len(rows))
        return [_feedback(settings, contract, row, f"rows[{place}]") for place, row in enumerate(rows)]
    return [_feedback(settings, contract, value, "")]


def _feedback(settings: Settings, contract: Contract, value: Any, path: str) -> Feedback:
    found = careful.as_object(value, path, ("id", "label", "at", "event", "name"), needed=("id", "label"))
    before = f"{path}." if path else ""
    name = _short(found.get("name", settings.target), f"{before}name")
    at = found.get("at")
    if at is not None:
        text = careful.check_text(at, f"{before}at", expected="ISO time with a zone (string)", max_length=64)
        at = moment_us(text, f"{before}at")
    event = found.get("event")
    return Feedback(
        id=check_request_id(found["id"], f"{before}id"),
        name=name,
        value=_label(settings, contract, name, found["label"], f"{before}label"),
        at=at,
        event=None if event is None else _short(event, f"{before}event"),
    )


def _short(value: Any, path: str) -> str:
    text = careful.check_text(value, path, expected="string", max_length=200)
    if not text:
        refuse("is empty", code="wrong_type", field=path)
    return text


def _label(settings: Settings, contract: Contract, name: str, value: Any, path: str) -> Any:
    number = Field(name, "float", True, False, None, None, 0)
    if name != settings.target:
        return value if isinstance(value, bool) else careful.check_value(number, value, path)
    if settings.task == "regression":
        return careful.check_value(number, value, path)
    target = contract.column(settings.target)
    kind = {"bool": "bool", "int": "int"}.get(target.type, "category")
    checked = careful.check_value(Field(name, kind, True, False, None, None, target.longest), value, path)
    known = class_names(target)
    if class_name(checked) not in known:
        listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        refuse(f"{careful.shown(value)} is no class of {name}; known: {listed}", code="unknown_class", field=path)
    return checked


__all__ = [
    "MAX_BODY", "MAX_ROWS", "Decoded", "Feedback", "RequestDecoder", "RequestError", "compile_request",
    "decode_feedback", "decode_source",
]  # fmt: skip
