"""A contract: the columns of data as values. Pure: reading and writing contract.toml is in `contract.text`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from fairway import fingerprint

Type = Literal["int", "float", "bool", "category", "string", "text", "datetime", "date", "vector", "image"]
Known = Literal["request", "lookup", "later", "unsure"]
Role = Literal["feature", "entity", "at", "target", "ignore"]

FORMAT = 1


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
    range: [low, high] as a person declares it, both inclusive; a value outside is refused.
    values: a category's list, in a fixed order: a value's place is its code.
    unseen: a category value outside the list becomes null and is flagged, or is refused.
    zone: time zone of a datetime that states none.
    log: how the prediction log keeps the value.
    max_length: of a string or text, in characters; of an image, in bytes.
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
    range: tuple[float | str, float | str] | None = None
    values: tuple[str, ...] = ()
    unseen: Literal["null", "reject"] = "null"
    zone: str | None = None
    log: Literal["plain", "hash", "drop"] = "plain"
    max_length: int = 10_000
    length: int | None = None
    pattern: str | None = None
    unique: bool = False
    monotonic: Literal["rises", "strictly"] | None = None
    why: str | None = None
    assumed: tuple[str, ...] = ()


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

        def rules(columns: tuple[Column, ...]) -> list[object]:
            return [
                {k: v for k, v in vars(c).items() if k not in ("why", "assumed")} | {"name": c.name} for c in columns
            ]

        content = {"columns": rules(self.columns), "sources": [[n, rules(cs)] for n, cs in self.sources]}
        return "contract-" + fingerprint.of_value(content)[:12]
