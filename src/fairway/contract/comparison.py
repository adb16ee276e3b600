"""Rules over columns of one row, `arrives >= departs`: one comparison, read by a grammar that knows nothing else.

Light: the gateway checks requests by it. A table is checked by the same tree in `contract.rules`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from fairway import clock
from fairway.contract.columns import Column, Rule
from fairway.contract.toml import nearest

OPERATORS = ("==", "!=", ">=", "<=", ">", "<")
_TOKEN = re.compile(
    r"\s*(?:(?P<op>==|!=|>=|<=|>|<)|(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    r'|(?P<text>"[^"]*"|\'[^\']*\')|`(?P<quoted>[^`]+)`|(?P<bare>[^\W\d]\w*))\s*'
)
_ORDERED = ("int", "float", "datetime", "date")
_KINDS = {"int": "number", "float": "number", "category": "text", "string": "text", "text": "text"}


@dataclass(frozen=True)
class Name:
    """A column."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A value as it was written: a number, a text, true or false."""

    value: float | int | str | bool


@dataclass(frozen=True)
class Comparison:
    """left: a column. right: a column or a value in the left column's terms (times: microseconds UTC; dates: ISO).

    kind: what both sides are: number, text, bool, datetime or date.
    """

    left: Name
    operator: str
    right: Name | Literal
    kind: str

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(side.name for side in (self.left, self.right) if isinstance(side, Name))


@dataclass(frozen=True)
class RowRule:
    """A rule, read: where `when` holds (or is absent), `check` must hold; a null on either side is no violation."""

    rule: Rule
    check: Comparison
    when: Comparison | None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.check.columns + (self.when.columns if self.when else ())))


def read_rule(rule: Rule, columns: Sequence[Column]) -> RowRule:
    """Raises: ValueError, as the end of a sentence about the key: what was found and what is understood."""
    when = None if rule.when is None else read_comparison(rule.when, columns)
    return RowRule(rule, read_comparison(rule.check, columns), when)


def read_comparison(text: str, columns: Sequence[Column]) -> Comparison:
    """`column operator column|value`. Raises: ValueError."""
    tokens, place = [], 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f'can\'t be read at "{text[place : place + 20]}"; {_GRAMMAR}')
        tokens.append((found.lastgroup or "", found[found.lastgroup or 0]))
        place = found.end()
    kinds = [kind for kind, _ in tokens]
    if len(tokens) != 3 or kinds[1] != "op" or kinds[0] not in ("bare", "quoted") or kinds[2] == "op":
        raise ValueError(f'is "{text}"; {_GRAMMAR}')
    known = {c.name: c for c in columns}
    left, right = _column(tokens[0], known), _side(tokens[2], known)
    operator = tokens[1][1]
    if isinstance(right, Name):
        kind = _comparable(known[left.name], operator, known[right.name])
        return Comparison(left, operator, right, kind)
    return Comparison(left, operator, _fitting(right, operator, known[left.name]), _kind(known[left.name]))


_GRAMMAR = (
    "it must be a column, one of == != >= <= > <, and a column or a value, such as arrives >= departs, "
    'plan == "pro" or `a b` > 0'
)


def _column(token: tuple[str, str], known: Mapping[str, Column]) -> Name:
    if token[1] not in known:
        hint = nearest(token[1], known)
        raise ValueError(f'names "{token[1]}", which is no column' + (f"; did you mean {hint}?" if hint else ""))
    return Name(token[1])


def _side(token: tuple[str, str], known: Mapping[str, Column]) -> Name | Literal:
    kind, text = token
    if kind == "number":
        return Literal(int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else float(text))
    if kind == "text":
        return Literal(text[1:-1])
    if kind == "bare" and text in ("true", "false") and text not in known:
        return Literal(text == "true")
    return _column(token, known)


def _kind(column: Column) -> str:
    if column.type in ("vector", "image"):
        raise ValueError(f'compares "{column.name}", a {column.type}, which has no order and no equal')
    return _KINDS.get(column.type, column.type)


def _comparable(one: Column, operator: str, other: Column) -> str:
    if _kind(one) != _kind(other):
        raise ValueError(f"compares {one.name} ({one.type}) with {other.name} ({other.type})")
    _orderable(one, operator)
    return _kind(one)


def _orderable(column: Column, operator: str) -> None:
    if operator not in ("==", "!=") and column.type not in _ORDERED:
        raise ValueError(f'asks for the order of "{column.name}", a {column.type}; only == and != are understood there')


def _fitting(value: Literal, operator: str, column: Column) -> Literal:
    """The value in the column's own terms."""
    _orderable(column, operator)
    kind, found = _kind(column), value.value
    wrong = f"compares {column.name} ({column.type}) with {found!r}"
    if kind in ("datetime", "date"):
        if not isinstance(found, str):
            raise ValueError(f"{wrong}; write a {'time with its zone' if kind == 'datetime' else 'date'} in quotes")
        try:
            if kind == "datetime":
                return Literal(clock.to_us(clock.parse_iso(found)))
            return Literal(date.fromisoformat(found).isoformat())
        except ValueError as exc:
            raise ValueError(f"{wrong}, which is no ISO {kind}") from exc
    fits = {"number": isinstance(found, int | float) and not isinstance(found, bool), "text": isinstance(found, str)}
    if not fits.get(kind, isinstance(found, bool)):
        raise ValueError(wrong)
    if column.type == "category" and found not in column.values:
        hint = nearest(str(found), column.values)
        raise ValueError(f"{wrong}, which is none of its values" + (f"; did you mean {hint}?" if hint else ""))
    if kind == "number" and column.type == "int" and isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise ValueError(f"{wrong}, which is beyond 64 bits")
    return Literal(float(found)) if column.type == "float" else value


# -- one row of a request --------------------------------------------------------------------------------------------

_TRUTH: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    ">=": lambda a, b: bool(a >= b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    "<": lambda a, b: bool(a < b),
}


def holds(rule: RowRule, row: Mapping[str, Any]) -> bool:
    """Whether wire values (times in microseconds, dates as ISO text) keep the rule; a null leaves it kept.

    A `when` that can't be told, because of a null, does not count the row.
    """
    if rule.when is not None and _truth(rule.when, row) is not True:
        return True
    return _truth(rule.check, row) is not False


def _truth(comparison: Comparison, row: Mapping[str, Any]) -> bool | None:
    left = row[comparison.left.name]
    right = comparison.right.value if isinstance(comparison.right, Literal) else row[comparison.right.name]
    if left is None or right is None:
        return None
    return _TRUTH[comparison.operator](left, right)
