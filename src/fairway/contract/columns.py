"""A contract: the columns of data as values. Pure: reading and writing contract.toml is in `contract.text`."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Literal

from fairway import fingerprint

Type = Literal["int", "float", "bool", "category", "string", "text", "datetime", "date", "vector", "image"]
Known = Literal["request", "lookup", "later", "unsure"]
Role = Literal["feature", "entity", "at", "target", "ignore"]

FORMAT = 1

_LONGEST = {"text": 100_000, "image": 5_000_000}
_UNSAID = ("why", "assumed")  # for readers: they change no rule
# The keys that every id has counted since format 1, set or not. A key that came later counts only where it is set, so
# that a contract which does not use it keeps its id.
_ALWAYS = (
    "name", "type", "role", "known", "nulls", "null_values", "decimal", "unit", "seen", "range", "values", "unseen",
    "zone", "log", "max_length",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table, `[columns.NAME]`; of a source's table, `[sources.TABLE.columns.NAME]`.

    name: as in the table.
    type: what its values are.
    role: what it is for.
    known: when the value is known: with the `request`, by `lookup` (a view), only `later` (never a feature), or
      `unsure` (left out until a person says).
    nulls: whether a value may be missing.
    null_values: texts of a CSV file that mean null.
    decimal: mark of a CSV file's numbers.
    unit: for readers.
    seen: [low, high] as observed; a value outside is predicted, and flagged.
    range: [low, high] as a person declares it, both inclusive; a value outside is refused. inf: no end (here None).
    values: a category's list, in a fixed order: a value's place is its code.
    unseen: a category value outside the list becomes null and is flagged, or is refused.
    zone: time zone of a datetime that states none.
    log: how the prediction log keeps the value.
    max_length: of a string or text, in characters (10,000 and 100,000 unless given); of an image, in bytes (5,000,000).
    formats: of an image: what its first bytes must say it is (png, jpeg, gif, webp, bmp, tiff); none given, any bytes.
    length: of a vector: how many numbers every value has.
    pattern: a regular expression that the whole string matches; otherwise the row is refused.
    unique: no value may come twice in the table.
    monotonic: values never fall from row to row in the table's own order ("strictly": always rise).
    why: why `known` is unsure or later.
    assumed: keys that were guessed: a person should look.
    """

    name: str
    type: Type
    role: Role = "feature"
    known: Known = "request"
    nulls: bool = False
    null_values: tuple[str, ...] = ()
    decimal: str = "."
    unit: str | None = None
    seen: tuple[float | str, float | str] | None = None
    range: tuple[float | str | None, float | str | None] | None = None
    values: tuple[str, ...] = ()
    unseen: Literal["null", "reject"] = "null"
    zone: str | None = None
    log: Literal["plain", "hash", "drop"] = "plain"
    max_length: int | None = None
    formats: tuple[str, ...] = ()
    length: int | None = None
    pattern: str | None = None
    unique: bool = False
    monotonic: Literal["rises", "strictly"] | None = None
    why: str | None = None
    assumed: tuple[str, ...] = ()

    @property
    def longest(self) -> int:
        """`max_length`, or what holds without one."""
        return self.max_length if self.max_length is not None else _LONGEST.get(self.type, 10_000)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule over columns of one row, `[rules.NAME]`.

    name: what reports call it.
    check: two columns, or a column and a value, compared: "arrives >= departs"; a null on either side holds.
    when: the rule counts only for rows where this comparison holds.
    why: for readers.
    """

    name: str
    check: str
    when: str | None = None
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The columns of the training table and of its source tables.

    columns: in the table's order.
    sources: a source table's name with its own columns.
    rules: comparisons across columns.
    rows: [fewest, most] rows that the table may have.
    fresh: the newest `at` may be at most so old, such as "2d".
    reviewed: whether a person has read this file.
    format: of this file.
    """

    columns: tuple[Column, ...]
    sources: tuple[tuple[str, tuple[Column, ...]], ...] = ()
    rules: tuple[Rule, ...] = ()
    rows: tuple[int, int] | None = None
    fresh: timedelta | None = None
    reviewed: bool = False
    format: int = FORMAT

    def column(self, name: str) -> Column:
        """Raises: KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def by_role(self, role: Role) -> Column | None:
        return next((c for c in self.columns if c.role == role), None)

    @property
    def request_columns(self) -> tuple[Column, ...]:
        """What a request carries: the entity, `at` and the features known with the request, in order.

        `at` is optional in a request (see settings.endpoint); the target, later, unsure and ignored columns are not
        part of it.
        """
        return tuple(
            c for c in self.columns if c.role in ("entity", "at") or (c.role == "feature" and c.known == "request")
        )

    @property
    def version(self) -> str:
        """Content id of what the rules and types say; `reviewed`, `why` and `assumed` do not count."""
        content: dict[str, object] = {
            "columns": [_counted(c) for c in self.columns],
            "sources": [[name, [_counted(c) for c in columns]] for name, columns in self.sources],
        }
        if self.rules:
            content["rules"] = [[rule.name, rule.check, rule.when] for rule in self.rules]
        if self.rows is not None:
            content["rows"] = self.rows
        if self.fresh is not None:
            content["fresh_s"] = self.fresh.total_seconds()
        return "contract-" + fingerprint.of_value(content)[:12]


def _counted(column: Column) -> dict[str, object]:
    later = {
        f.name: getattr(column, f.name)
        for f in fields(column)
        if f.name not in _ALWAYS and f.name not in _UNSAID and getattr(column, f.name) != f.default
    }
    return {key: getattr(column, key) for key in _ALWAYS} | {"max_length": column.longest} | later
