"""The project's table by its contract, without training: what `fairway check` shows first."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fairway import clock
from fairway.contract.examine import Examined, examine, refusal
from fairway.contract.result import as_dict, as_html
from fairway.data.project import Project
from fairway.data.snapshot import checkable, columns_of
from fairway.data.source import read_table
from fairway.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Quality:
    """table: what it is called. found: every rule of the contract on it."""

    table: str
    found: Examined

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return as_dict(self.found, table=self.table)

    def write_html(self, path: Path) -> None:
        path.write_text(as_html(self.found, table=self.table), encoding="utf-8")

    def refusal(self) -> DataError | None:
        """The first broken rule as the sentence that `train` would end with."""
        return refusal(self.found.broken[0], file=self.table) if self.found.broken else None


def check_data(project: Project, *, now: datetime | None = None) -> Quality:
    """Every rule of contract.toml on the project's table as it is now. Registers and keeps nothing.

    Raises: DataError for a table that can't be read or has no rows; SettingsError.
    """
    raw = read_table(project.settings.data, project.root)
    if not raw.frame.height:
        raise DataError("the table has no rows, only its columns", file=raw.name)
    part, locate = checkable(project, raw)
    found = examine(
        part, columns_of(project), file=raw.name, locate=locate, contract=project.contract, now=now or clock.now(),
        height=raw.frame.height,
    )  # fmt: skip
    return Quality(table=raw.name, found=found)
