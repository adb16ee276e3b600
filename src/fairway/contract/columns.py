"""A contract: the columns of data as values. Pure: reading and writing contract.toml is in `contract.text`."""

from dataclasses import dataclass
from typing import Literal

from fairway import fingerprint

Type = Literal["int", "float", "bool", "category", "string", "datetime", "date"]
Known = Literal["request", "lookup", "later", "unsure"]
Role = Literal["feature", "entity", "at", "target", "ignore"]

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. `seen` is what was observed (only flags a row), `range` what a person declared (refuses it).

    known: when the value is known: with the `request`, by `lookup` (a view), only `later` (never a feature), or
    `unsure` (left out until a person says). values: the category's list, in a fixed order (its place is its code).
    unseen: a category value outside the list becomes null and is flagged ("null"), or is refused ("reject").
    seen, range: [low, high], both inclusive; datetimes as ISO text. log: how the prediction log keeps the value.
    assumed: names of the fields that were guessed and that a person should look at.
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
    why: str | None = None  # why `known` is unsure or later
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The columns of the training table and of its source tables.

    `columns` keep the table's order. `sources` maps a source table's name to its own columns.
    """

    columns: tuple[Column, ...]
    sources: tuple[tuple[str, tuple[Column, ...]], ...] = ()
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
