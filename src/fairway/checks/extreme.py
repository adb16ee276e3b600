"""Extreme requests (METHODS 6f): for each column of a contract, and for the body as a whole, what may come and what
must then happen. They are request bodies, so the same list tests the packaged model and a served endpoint.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fairway.checks.extreme_nested import images, vectors
from fairway.contract.columns import Column, Contract
from fairway.contract.comparison import read_rule
from fairway.contract.settings import Settings

Expected = Literal["ok", "reject", "either"]
Raw = tuple[str, str, Expected]  # (what it is, JSON text of the value, what must happen)

_LARGEST = "1.7976931348623157e308"
_DIGITS = 5000
MOST_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """One request. kind: a column type, "row" or "wire". column: the one that was changed, None for row and wire.

    expected: "ok" a finite answer, "reject" refused with the column named, "either" one of both, never anything else.
    rows: how many answers an accepted request has.
    """

    kind: str
    name: str
    body: bytes
    expected: Expected
    column: str | None = None
    rows: int = 1

    def shown(self) -> str:
        """The body, cut for people."""
        text = self.body[:120].decode("utf-8", "replace")
        return text + (f"... ({len(self.body):,} bytes)" if len(self.body) > 120 else "")


def draw(contract: Contract, settings: Settings, rows: Sequence[Mapping[str, Any]], *, seed: int) -> list[Extreme]:
    """Every extreme request for the contract's request columns.

    rows: known good request rows as JSON values (held-out ones); each extreme changes one drawn from them.
    Raises: ValueError without a row. The same seed draws the same requests.
    """
    if not rows:
        raise ValueError("no held-out row to start from")
    rng = np.random.default_rng(seed)
    may_say_at = settings.endpoint.at_from_caller
    columns = [c for c in contract.request_columns if c.role != "at" or may_say_at]
    names = {c.name for c in columns}
    # Another column's value may break a rule with an extreme one: whether it does is not this list's to say.
    ruled = {name for rule in contract.rules for name in read_rule(rule, contract.columns).columns}

    def base() -> dict[str, str]:
        row = rows[int(rng.integers(len(rows)))]
        return {key: json.dumps(value) for key, value in row.items() if key in names}

    found = []
    for column in columns:
        for name, raw, expected in _values(column, rng):
            if expected == "ok" and column.name in ruled:
                expected = "either"
            found.append(
                Extreme(
                    kind=column.type,
                    name=name,
                    body=body([base() | {column.name: raw}]),
                    expected=expected,
                    column=column.name,
                )
            )
    return found + _row_kinds(columns, base) + _wire_kinds(base)


def body(rows: Sequence[Mapping[str, str]]) -> bytes:
    """A request from rows of column -> JSON text, so that values no JSON library would write can be sent."""
    texts = ["{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in row.items()) + "}" for row in rows]
    # A lone surrogate stays an escape: it exists in JSON text, not in UTF-8.
    return ('{"rows":[' + ",".join(texts) + "]}").encode()


def _values(column: Column, rng: np.random.Generator) -> list[Raw]:
    nullable: Expected = "ok" if column.nulls and column.role != "entity" else "reject"
    null: Raw = ("null", "null", "either" if column.role == "at" else nullable)  # `at` is optional
    makers = {
        "float": _floats, "int": _ints, "bool": _bools, "category": _categories, "string": _strings,
        "text": _strings, "datetime": _datetimes, "date": _dates, "vector": vectors, "image": images,
    }  # fmt: skip
    made: list[Raw] = makers[column.type](column, rng)  # type: ignore[assignment]
    if column.type in ("string", "text", "category"):
        tokens = {json.dumps(token) for token in column.null_values}  # texts that stand for null
        made = [(name, raw, null[2] if raw in tokens else expected) for name, raw, expected in made]
    if column.pattern is not None:
        whole = re.compile(column.pattern)
        made = [(name, raw, _matching(whole, raw, expected)) for name, raw, expected in made]
    return [*made, null]


def _matching(pattern: "re.Pattern[str]", raw: str, expected: Expected) -> Expected:
    """What must happen to a text that would be right without the declared pattern."""
    if expected != "ok" or not raw.startswith('"'):
        return expected
    return "ok" if pattern.fullmatch(json.loads(raw)) else "reject"


def _inside(column: Column, value: float) -> Expected:
    if column.range is None:
        return "ok"
    low, high = column.range
    fits = (low is None or float(low) <= value) and (high is None or value <= float(high))
    return "ok" if fits else "reject"


def _seen(column: Column, rng: np.random.Generator) -> list[tuple[str, float]]:
    if column.seen is None:
        return []
    low, high = float(column.seen[0]), float(column.seen[1])
    between = float(rng.uniform(low, high)) if low < high else low
    return [("smallest seen", low), ("largest seen", high), ("a seen one", between), ("10 x the largest", 10 * high),
            ("minus the largest", -high)]  # fmt: skip


def _floats(column: Column, rng: np.random.Generator) -> list[Raw]:
    plain = [("zero", "0"), ("minus zero", "-0.0"), ("tiny", "1e-308"), ("minus tiny", "-1e-308"), ("huge", "1e308"),
             ("minus huge", "-1e308"), ("largest double", _LARGEST), ("2^53 + 1", "9007199254740993"),
             ("a denormal", "5e-324"), ("written long", "0." + "1" * 400)]  # fmt: skip
    plain += [(name, repr(value)) for name, value in _seen(column, rng)]
    refused = [("infinity", "1e999"), ("minus infinity", "-1e999"), ("NaN", "NaN"), ("Infinity", "Infinity"),
               ("a number as text", '"12.5"'), ("decimal comma", '"12,5"'), ("true", "true"), ("a list", "[1.5]"),
               ("an object", "{}")]  # fmt: skip
    return [(name, raw, _inside(column, float(raw))) for name, raw in plain] + [
        (name, raw, "reject") for name, raw in refused
    ]


def _ints(column: Column, rng: np.random.Generator) -> list[Raw]:
    numbers = [("zero", 0), ("one", 1), ("minus one", -1), ("int32 min", -(2**31)), ("int32 max", 2**31 - 1),
               ("int64 min", -(2**63)), ("int64 max", 2**63 - 1), ("2^53 + 1", 2**53 + 1)]  # fmt: skip
    numbers += [(name, int(value)) for name, value in _seen(column, rng) if abs(value) < 2**62]
    refused = [("2^63", str(2**63)), ("below int64", str(-(2**63) - 1)), ("30 digits", "9" * 30),
               ("5,000 digits", "9" * _DIGITS), ("a number as text", '"12"'), ("a half", "12.5"), ("true", "true"),
               ("infinity", "1e999"), ("NaN", "NaN"), ("a list", "[1]")]  # fmt: skip
    found: list[Raw] = [(name, str(value), _inside(column, value)) for name, value in numbers]
    found += [(name, raw, "reject") for name, raw in refused]
    return [*found, ("a whole number with a point", "12.0", "either")]


def _bools(column: Column, rng: np.random.Generator) -> list[Raw]:
    refused = [("0", "0"), ("1", "1"), ("text true", '"true"'), ("yes", '"yes"'), ("empty text", '""')]
    return [("true", "true", "ok"), ("false", "false", "ok"), *((name, raw, "reject") for name, raw in refused)]


def _categories(column: Column, rng: np.random.Generator) -> list[Raw]:
    unseen: Expected = "reject" if column.unseen == "reject" else "ok"
    found: list[Raw] = [("a number", "7", "reject"), ("true", "true", "reject"), ("a list", '["x"]', "reject")]
    texts = {"unseen": "fairway-never-seen", "empty": "", "emoji": "\U0001f6eb", "markup": "<script>alert(1)</script>"}
    if column.values:
        known = column.values[int(rng.integers(len(column.values)))]
        texts |= {"known": known, "blanks around": f" {known} ", "other case": known.swapcase()}
    for name, text in texts.items():
        expected: Expected = "ok" if text in column.values else unseen
        found.append((name, json.dumps(text), expected))
    return [*found, ("10 kB", json.dumps("x" * 10_240), "either")]


def _strings(column: Column, rng: np.random.Generator) -> list[Raw]:
    texts = {
        "empty": "", "emoji": "\U0001f469‍\U0001f680", "right to left": "שלום", "combining marks": "é́́",
        "NULL": "NULL", "NaN": "NaN", "markup": "<img src=x onerror=alert(1)>", "quotes": "'\"`;--",
        "a newline": "a\nb", "formula": "=1+1",
    }  # fmt: skip
    found: list[Raw] = [(name, json.dumps(text), "ok") for name, text in texts.items()]
    if column.role == "entity":
        # An empty or odd id may be refused; it must never break anything.
        found = [(name, raw, "either") for name, raw, _ in found]
    found += [("NUL character", '"a\\u0000b"', "either"), ("lone surrogate", '"\\ud800"', "either")]
    found += [("a number", "12", "reject"), ("true", "true", "reject"), ("a list", '["a"]', "reject")]
    fits: Expected = "ok" if column.longest >= 2**20 else "reject"
    return [*found, ("1 MB", json.dumps("x" * 2**20), fits)]


def _datetimes(column: Column, rng: np.random.Generator) -> list[Raw]:
    free = column.range is None and column.role != "at"
    fine: Expected = "ok" if free else "either"
    odd = {"epoch": "1970-01-01T00:00:00Z", "leap day": "2024-02-29T12:00:00Z",
           "other zone": "2024-06-01T12:00:00+05:45", "in a clock gap": "2024-03-31T02:30:00+01:00",
           "the year 1900": "1900-01-01T00:00:00Z",
           "ten years on": "2036-01-01T00:00:00Z"}  # fmt: skip
    found: list[Raw] = [(name, json.dumps(text), fine) for name, text in odd.items()]
    either = {"leap second": "2016-12-31T23:59:60Z", "the year 9999": "9999-12-31T23:59:59Z", "a day": "2024-06-01"}
    found += [(name, json.dumps(text), "either") for name, text in either.items()]
    refused = [("no zone", '"2024-06-01T12:00:00"'), ("seconds", "1717243200"), ("milliseconds", "1717243200000"),
               ("no such day", '"2023-02-29T12:00:00Z"'), ("empty", '""'), ("words", '"tomorrow"'),
               ("true", "true")]  # fmt: skip
    return found + [(name, raw, "reject") for name, raw in refused]


def _dates(column: Column, rng: np.random.Generator) -> list[Raw]:
    fine: Expected = "ok" if column.range is None else "either"
    odd = {"epoch": "1970-01-01", "leap day": "2024-02-29", "the year 1900": "1900-01-01", "ten years on": "2036-01-01"}
    found: list[Raw] = [(name, json.dumps(text), fine) for name, text in odd.items()]
    found += [("the year 9999", '"9999-12-31"', "either"), ("with a time", '"2024-06-01T00:00:00Z"', "either")]
    refused = [("no such day", '"2023-02-29"'), ("days", "19875"), ("empty", '""'), ("words", '"tomorrow"')]
    return found + [(name, raw, "reject") for name, raw in refused]


def _row_kinds(columns: Sequence[Column], base: Any) -> list[Extreme]:
    row: dict[str, str] = base()
    needed = [c for c in columns if not c.nulls and c.role != "at"]
    found = [
        ("no fields", body([{}]), "reject" if needed else "either", 1),
        ("all null", body([dict.fromkeys(row, "null")]), "reject" if needed else "either", 1),
        ("an extra field", body([row | {"fairway_no_such_column": "1"}]), "reject", 1),
        ("fields in another order", body([dict(reversed(row.items()))]), "ok", 1),
        ("no rows", b'{"rows":[]}', "reject", 0),
        ("two rows", body([row, base()]), "ok", 2),
        ("one bad row of two", body([row, {}]), "reject" if needed else "either", 2),
        ("too many rows", body([row] * (MOST_ROWS + 1)), "reject", 0),
    ]  # fmt: skip
    if needed:
        rest = {name: raw for name, raw in row.items() if name != needed[0].name}
        found.append((f"{needed[0].name} missing", body([rest]), "reject", 1))
    if row:
        name, raw = next(iter(row.items()))
        twice = body([row]).replace(b'{"rows":[{', b'{"rows":[{' + f"{json.dumps(name)}:{raw},".encode(), 1)
        found.append(("a field twice", twice, "reject", 1))
    return [Extreme(kind="row", name=n, body=b, expected=e, rows=k) for n, b, e, k in found]  # type: ignore[arg-type]


def _wire_kinds(base: Any) -> list[Extreme]:
    whole = body([base()])
    bodies = {
        "empty": b"", "null": b"null", "a list": b"[]", "a number": b"1", "no rows key": b"{}",
        "rows is text": b'{"rows":"x"}',
        "a row is a list": b'{"rows":[[]]}', "a row is null": b'{"rows":[null]}', "cut": whole[:-3],
        "trailing text": whole + b"x", "single quotes": whole.replace(b'"', b"'"), "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000, "invalid UTF-8": whole[:-2] + b"\xff\xfe" + whole[-2:],
        "overlong UTF-8": b'{"rows":[{"a":"\xc0\xaf"}]}', "UTF-16": whole.decode().encode("utf-16"),
        "NUL bytes": b"\x00" * 64, "gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 32,
        "an unknown key": whole[:-1] + b',"fairway":1}',
    }  # fmt: skip
    found = [Extreme(kind="wire", name=name, body=text, expected="reject") for name, text in bodies.items()]
    return [*found, Extreme(kind="wire", name="byte order mark", body=b"\xef\xbb\xbf" + whole, expected="either")]
