"""The careful reader of request bodies: slower than msgspec, and able to say exactly what is wrong, and where.

The hot path (`contract.request`) comes here when msgspec refuses a body, when the body may hold a duplicate key, and
for column names that msgspec can't express. Both accept the same bodies; a property test compares them.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fairway.contract.columns import Column
from fairway.contract.formats import is_image, unpacked
from fairway.errors import RequestError

INT64_LOW, INT64_HIGH = -(2**63), 2**63 - 1
MAX_ROWS = 10_000
REQUEST_ID = re.compile(r"[!-~]{1,128}")
_EXPECTED = {
    "int": "int", "float": "float", "bool": "bool", "category": "string", "string": "string",
    "text": "string", "datetime": "ISO time with a zone (string)", "date": "ISO date (string)",
    "vector": "array of numbers", "image": "base64 text of an image's bytes (string)",
}  # fmt: skip
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__bool__": lambda self: False})()


@dataclass(frozen=True, slots=True)
class Field:
    """What a row may carry in one column. required: the key must be there. low, high: declared range (numbers).

    length: of a vector. formats: of an image.
    """

    name: str
    type: str
    required: bool
    nulls: bool
    low: float | None
    high: float | None
    max_length: int
    length: int | None = None
    formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: Column, *, required: bool | None = None, nulls: bool | None = None) -> "Field":
        numeric = column.type in ("int", "float", "vector")
        low, high = column.range if numeric and column.range else (None, None)
        if nulls is None:
            nulls = column.nulls and column.role not in ("entity", "at")
        must = not nulls if required is None else required
        ends: dict[str, Any] = {"low": low, "high": high}  # numbers, as the column's type says
        return cls(
            name=column.name, type=column.type, required=must, nulls=nulls, **ends, max_length=column.longest,
            length=column.length, formats=column.formats,
        )  # fmt: skip


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, duplicates included."""


@dataclass(frozen=True, slots=True)
class _Odd:
    """A number that is no finite double, as it was written."""

    text: str


def refuse(message: str, *, code: str, field: str | None = None, status: int = 422) -> NoReturn:
    raise RequestError(f"{field}: {message}" if field else message, code=code, status=status, field=field)


def parse(body: bytes) -> Any:
    """Strict JSON: UTF-8 without BOM, no NaN, no trailing text; objects as pairs. Raises: RequestError 400."""
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        refuse("the body starts with a byte order mark; send plain UTF-8", code="invalid_json", status=400)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        refuse(f"the body is not UTF-8 at byte {exc.start}", code="invalid_json", status=400)
    try:
        return json.loads(text, object_pairs_hook=_Pairs, parse_constant=_Odd, parse_float=_as_float, parse_int=_as_int)
    except RecursionError:
        refuse("the body is nested too deeply", code="invalid_json", status=400)
    except json.JSONDecodeError as exc:
        where = "is empty" if not text.strip() else f"is not JSON: {exc.msg.lower()} at character {exc.pos}"
        refuse(f"the body {where}", code="invalid_json", status=400)


def _as_float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _Odd(text)


def _as_int(text: str) -> Any:
    if len(text) > 400:  # beyond any double, and Python refuses to convert 4,300 digits
        return _Odd(text)
    return int(text)


def shown(value: Any) -> str:
    """A value in a message: its kind and, when short, itself. Never the whole of a long one."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"bool {str(value).lower()}"
    if isinstance(value, _Odd):
        return value.text if len(value.text) <= 24 else f"a number of {len(value.text)} digits"
    if isinstance(value, int | float):
        text = str(value) if abs(value) < 1e300 else "a huge one"
        return f"number {text if len(text) <= 24 else text[:10] + '...'}"
    if isinstance(value, str):
        return f"string {json.dumps(value)}" if len(value) <= 40 else f"a string of {len(value):,} characters"
    return "object" if isinstance(value, _Pairs) else "array"


def is_array(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, _Pairs)


def as_object(value: Any, path: str, known: tuple[str, ...], *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object's members. Raises: RequestError for a duplicate, unknown or missing key, naming its path."""
    if not isinstance(value, _Pairs):
        refuse(f"expected object, got {shown(value)}", code="wrong_type", field=path or None)
    found: dict[str, Any] = {}
    for key, item in value:
        here = f"{path}.{printable(key)}" if path else printable(key)
        if key in found:
            refuse("this key is given twice", code="duplicate_field", field=here)
        if key not in known:
            refuse("unknown field", code="unknown_field", field=here)
        found[key] = item
    for key in needed:
        if key not in found:
            refuse("missing field", code="missing_field", field=f"{path}.{key}" if path else key)
    return found


def printable(key: str) -> str:
    """A caller's key, fit for a message: bounded, and without lone surrogates."""
    return key[:80].encode("utf-8", "backslashreplace").decode()


def check_value(field: Field, value: Any, path: str) -> Any:
    """The value as msgspec would give it. Raises: RequestError naming `path`."""
    if value is None:
        if not field.nulls:
            refuse(f"expected {_EXPECTED[field.type]}, got null", code="wrong_type", field=path)
        return None
    kind = field.type
    if isinstance(value, _Odd) and kind in ("int", "float"):
        code = "out_of_range" if kind == "int" and value.text.lstrip("-").isdigit() else "not_finite"
        refuse(f"expected {_EXPECTED[kind]}, got {shown(value)}: it is not a finite number", code=code, field=path)
    if kind == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            refuse(f"expected int, got {shown(value)}", code="wrong_type", field=path)
        if not INT64_LOW <= value <= INT64_HIGH:
            refuse("expected int, got a number beyond 64 bits", code="out_of_range", field=path)
        return check_range(field, value, path)
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, int | float):
            refuse(f"expected float, got {shown(value)}", code="wrong_type", field=path)
        try:
            number = float(value)
        except OverflowError:
            refuse("expected float, got a number beyond a double", code="not_finite", field=path)
        return check_range(field, number, path)
    if kind == "bool":
        if not isinstance(value, bool):
            refuse(f"expected bool (true or false), got {shown(value)}", code="wrong_type", field=path)
        return value
    if kind == "vector":
        return check_vector(field, value, path)
    if kind == "image":
        return check_image(field, value, path)
    return check_text(value, path, expected=_EXPECTED[kind], max_length=field.max_length)


def check_vector(field: Field, value: Any, path: str) -> list[float]:
    if not is_array(value):
        refuse(f"expected array of {field.length} numbers, got {shown(value)}", code="wrong_type", field=path)
    if len(value) != field.length:
        refuse(f"has {len(value):,} numbers; it must have {field.length:,}", code="wrong_length", field=path)
    number = Field(field.name, "float", True, False, field.low, field.high, 0)
    return [check_value(number, item, f"{path}[{place}]") for place, item in enumerate(value)]


def check_image(field: Field, value: Any, path: str) -> bytes:
    if not isinstance(value, str):
        refuse(f"expected {_EXPECTED['image']}, got {shown(value)}", code="wrong_type", field=path)
    found = unpacked(value) if value.isascii() else None
    if found is None:
        refuse("is no base64 text", code="wrong_type", field=path)
    if len(found) > field.max_length:
        refuse(f"has {len(found):,} bytes; at most {field.max_length:,} are allowed", code="too_long", field=path)
    return check_format(field.formats, found, path)


def check_format(formats: Sequence[str], value: bytes, path: str) -> bytes:
    """Raises: RequestError for bytes that begin like none of the formats, where any are declared."""
    if formats and not is_image(value, formats):
        refuse(f"is no {' or '.join(formats)} image", code="wrong_format", field=path)
    return value


def check_range(field: Field, value: Any, path: str) -> Any:
    if (field.low is not None and value < field.low) or (field.high is not None and value > field.high):
        low, high = (None if end is None else f"{end:g}" for end in (field.low, field.high))
        text = f"{low} or more" if high is None else f"{high} or less" if low is None else f"{low} to {high}"
        refuse(f"{value} is outside the declared range {text}", code="out_of_range", field=path)
    return value


def check_text(value: Any, path: str, *, expected: str, max_length: int) -> str:
    if not isinstance(value, str):
        refuse(f"expected {expected}, got {shown(value)}", code="wrong_type", field=path)
    if len(value) > max_length:
        refuse(f"has {len(value):,} characters; at most {max_length:,} are allowed", code="too_long", field=path)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        refuse("holds half of a surrogate pair, which is no text", code="invalid_text", field=path)
    return value


def check_request_id(value: Any, path: str = "request_id") -> str:
    """Raises: RequestError unless 1 to 128 visible ASCII characters."""
    if not isinstance(value, str):
        refuse(f"expected string, got {shown(value)}", code="wrong_type", field=path)
    if not REQUEST_ID.fullmatch(value):
        refuse("must be 1 to 128 visible ASCII characters without blanks", code="invalid_request_id", field=path)
    return value


def read_rows(
    body: bytes, fields: tuple[Field, ...], extra: tuple[str, ...], refused: dict[str, tuple[str, str]]
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The other members of the body, and each row's values in the order of `fields` (ABSENT where there is none).

    refused: columns that exist but that a request may not carry, with the code and the reason.
    """
    top = as_object(parse(body), "", ("rows", *extra), needed=("rows",))
    rows = top.pop("rows")
    if not is_array(rows):
        refuse(f"expected array, got {shown(rows)}", code="wrong_type", field="rows")
    check_count(len(rows))
    known = tuple(f.name for f in fields)
    needed = tuple(f.name for f in fields if f.required)
    result = []
    for place, row in enumerate(rows):
        path = f"rows[{place}]"
        if refused and isinstance(row, _Pairs):
            for key, _ in row:
                if key in refused:
                    code, reason = refused[key]
                    refuse(reason, code=code, field=f"{path}.{key}")
        found = as_object(row, path, known, needed=needed)
        result.append(
            tuple(check_value(f, found[f.name], f"{path}.{f.name}") if f.name in found else ABSENT for f in fields)
        )
    return top, result


def check_count(n: int) -> None:
    if n == 0:
        refuse("is empty; send at least one row", code="no_rows", field="rows")
    if n > MAX_ROWS:
        refuse(f"has {n:,} rows; at most {MAX_ROWS:,} in one request", code="too_many_rows", field="rows", status=413)


def plain(value: Any) -> Any:
    """Pairs as dicts, for members that are passed on. Raises: RequestError for duplicates and odd numbers."""
    if isinstance(value, _Pairs):
        keys = [key for key, _ in value]
        if len(set(keys)) != len(keys):
            refuse("an object gives a key twice", code="duplicate_field")
        return {key: plain(item) for key, item in value}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, _Odd):
        refuse(f"{shown(value)} is not a finite number", code="not_finite")
    return value
