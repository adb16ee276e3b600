"""contract.toml as a value. Strict: an unknown key, type, range or rule is refused with its line."""

from datetime import date, timedelta
from math import inf, isfinite
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from fairway.clock import parse_iso
from fairway.contract.columns import FORMAT, Column, Contract, Rule, Type
from fairway.contract.comparison import read_comparison
from fairway.contract.formats import FORMATS
from fairway.contract.pattern import unfit
from fairway.contract.toml import NAME, Document, Table, check_format, kind_of, nearest, one_of

TYPES = ("int", "float", "bool", "category", "string", "text", "datetime", "date", "vector", "image")
_TEXTS = ("string", "text")


def parse_contract(text: str, *, file: str = "contract.toml") -> Contract:
    """What contract.toml says. Raises: SettingsError with line, key, what was found and what is allowed."""
    top = Document(text, file=file).table()
    top.allow("format", "reviewed", "rows", "fresh", "columns", "rules", "sources")
    check_format(top, FORMAT)
    columns = _columns(top.sub("columns"))
    if not columns:
        raise top.document.error((), "no columns: a contract has one [columns.NAME] table per column")
    for role in ("entity", "at", "target"):
        having = [c.name for c in columns if c.role == role]
        if len(having) > 1:
            raise top.document.error(
                ("columns", having[1], "role"), f"columns {having[0]} and {having[1]} both have role {role}"
            )
    sources = top.sub("sources")
    described = []
    for name in sources.data:
        table = sources.sub(name)
        table.allow("columns")
        described.append((name, _columns(table.sub("columns"))))
    return Contract(
        columns=columns,
        sources=tuple(described),
        rules=_rules(top.sub("rules"), columns),
        rows=_rows(top),
        fresh=top.duration("fresh", None, low=timedelta(seconds=1)),
        reviewed=top.flag("reviewed", False),
    )


def _rules(tables: Table, columns: tuple[Column, ...]) -> tuple[Rule, ...]:
    found = []
    for name in tables.data:
        table = tables.sub(name)
        table.allow("check", "when", "why")
        if not NAME.fullmatch(name):
            raise tables.wrong(name, "is no name for a rule; use 1 to 64 of a-z 0-9 . _ -")
        rule = Rule(name=name, check=table.need_text("check"), when=table.text("when"), why=table.text("why"))
        for key in ("check", "when"):
            text = getattr(rule, key)
            try:
                if text is not None:
                    read_comparison(text, [c for c in columns if c.role != "ignore"])
            except ValueError as exc:
                raise table.wrong(key, str(exc)) from exc
        found.append(rule)
    return tuple(found)


def _rows(top: Table) -> tuple[int, int] | None:
    if not top.has("rows"):
        return None
    value = top.data["rows"]
    whole = isinstance(value, list) and len(value) == 2
    if not whole or any(isinstance(end, bool) or not isinstance(end, int) or end < 0 for end in value):
        raise top.wrong("rows", f"must be [fewest, most], two whole numbers from 0, got {kind_of(value)}")
    if value[0] > value[1]:
        raise top.wrong("rows", f"is {value}: the low end stands above the high one")
    return value[0], value[1]


def _columns(tables: Table) -> tuple[Column, ...]:
    return tuple(_column(tables, name) for name in tables.data)


def _column(tables: Table, name: str) -> Column:
    table = tables.sub(name)
    table.allow(
        "type", "role", "known", "nulls", "null_values", "decimal", "unit", "seen", "range", "values", "unseen", "zone",
        "log", "max_length", "formats", "length", "pattern", "unique", "monotonic", "why", "assumed",
    )  # fmt: skip
    if name.startswith("_") and not name.strip("_"):
        raise tables.wrong(name, "is no column name")
    kind = cast(Type, table.need_text("type", known=TYPES))
    role = table.text("role", "feature", known=("feature", "entity", "at", "target", "ignore"))
    if role == "at" and kind != "datetime":
        raise table.wrong("type", f'is "{kind}"; the prediction time must be a datetime')
    assumed = table.texts("assumed")
    for field in assumed:
        if field not in Column.__dataclass_fields__:
            raise table.wrong("assumed", f'names "{field}", which is no key of a column')
    return Column(
        name=name,
        type=kind,
        role=role,
        known=table.text(
            "known", "later" if role == "target" else "request", known=("request", "lookup", "later", "unsure")
        ),
        nulls=table.flag("nulls", False),
        null_values=table.texts("null_values"),
        decimal=table.text("decimal", ".", known=(".", ",")),
        unit=table.text("unit"),
        seen=_range(table, "seen", kind),
        range=_range(table, "range", kind, open_ends=True),
        values=_values(table, kind, role),
        unseen=table.text("unseen", "null", known=("null", "reject")),
        zone=_zone(table, kind),
        log=table.text("log", "plain", known=("plain", "hash", "drop")),
        max_length=_max_length(table, kind),
        formats=_formats(table, kind),
        length=_length(table, kind),
        pattern=_pattern(table, kind),
        unique=_unique(table, kind),
        monotonic=_monotonic(table, kind),
        why=table.text("why"),
        assumed=assumed,
    )


def _only(table: Table, key: str, kind: str, kinds: tuple[str, ...]) -> bool:
    """Whether the key is there. Raises: SettingsError where it has no meaning for the column's type."""
    if table.has(key) and kind not in kinds:
        raise table.wrong(key, f'is for type {one_of(kinds)}; this column is "{kind}"')
    return table.has(key)


def _max_length(table: Table, kind: str) -> int | None:
    if not _only(table, "max_length", kind, (*_TEXTS, "category", "image")):
        return None
    return table.whole("max_length", 1, low=1, high=10_000_000)


def _length(table: Table, kind: str) -> int | None:
    if kind == "vector" and not table.has("length"):
        raise table.document.error(table.path, f"{table.name('length')} is missing: how many numbers a vector has")
    return table.whole("length", 1, low=1, high=100_000) if _only(table, "length", kind, ("vector",)) else None


def _formats(table: Table, kind: str) -> tuple[str, ...]:
    _only(table, "formats", kind, ("image",))
    found = table.texts("formats")
    for name in found:
        if name not in FORMATS:
            raise table.wrong("formats", f'names "{name}"; known: {", ".join(FORMATS)}')
    return found


def _pattern(table: Table, kind: str) -> str | None:
    if not _only(table, "pattern", kind, _TEXTS):
        return None
    text: str = table.text("pattern")
    wrong = unfit(text)
    if wrong:
        raise table.wrong("pattern", wrong)
    return text


def _unique(table: Table, kind: str) -> bool:
    _only(table, "unique", kind, ("int", "float", "category", *_TEXTS, "datetime", "date", "image"))
    return table.flag("unique", False)


def _monotonic(table: Table, kind: str) -> Any:
    _only(table, "monotonic", kind, ("int", "float", "datetime", "date"))
    return table.text("monotonic", None, known=("rises", "strictly"))


def _values(table: Table, kind: str, role: str) -> tuple[str, ...]:
    values = table.texts("values")
    if kind == "category" and not values:
        raise table.document.error(table.path, f"{table.name('values')} is missing: the list of a category's values")
    if values and kind != "category" and role != "target":
        raise table.wrong("values", f'is for type "category"; this column is "{kind}"')
    return values


def _zone(table: Table, kind: str) -> str | None:
    zone = table.text("zone")
    if zone is None:
        return None
    if kind != "datetime":
        raise table.wrong("zone", f'is for type "datetime"; this column is "{kind}"')
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        hint = nearest(zone, available_timezones())
        raise table.wrong("zone", f'is "{zone}", which is no time zone' + (f"; {hint}?" if hint else "")) from exc
    return cast(str, zone)


def _range(table: Table, key: str, kind: str, *, open_ends: bool = False) -> tuple[Any, Any] | None:
    """[low, high] in the column's own type; times as ISO text. open_ends: -inf and inf are no ends, and become None."""
    if not table.has(key):
        return None
    value = table.data[key]
    if kind not in ("int", "float", "vector", "datetime", "date"):
        raise table.wrong(key, f'has no meaning for type "{kind}"')
    if not isinstance(value, list) or len(value) != 2:
        raise table.wrong(key, f"must be [low, high], got {kind_of(value)}")
    low, high = value
    if open_ends:
        low, high = (None if low == -inf else low), (None if high == inf else high)
    given = [end for end in (low, high) if end is not None]
    if not given:
        raise table.wrong(key, f"is {value}, without any end; leave it out")
    if kind in ("int", "float", "vector"):
        if any(isinstance(end, bool) or not isinstance(end, int | float) or not isfinite(end) for end in given):
            also = "; inf leaves an end open" if open_ends else ""
            raise table.wrong(key, f"must be two finite numbers [low, high]{also}, got {value}")
    else:
        for end in given:
            _check_moment(table, key, end, kind)
    if len(given) == 2 and low > high:
        raise table.wrong(key, f"is {value}: the low end stands above the high one")
    return low, high


def _check_moment(table: Table, key: str, end: Any, kind: str) -> None:
    try:
        if kind == "date":
            date.fromisoformat(end)
        else:
            parse_iso(end)
    except (TypeError, ValueError) as exc:
        example = "2014-05-01" if kind == "date" else "2014-05-01T00:00:00Z"
        raise table.wrong(key, f'must be two texts such as "{example}", got {kind_of(end)}') from exc
