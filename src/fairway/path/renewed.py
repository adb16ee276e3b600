"""`fairway check --update-contract`: contract.toml brought up to today's table or a Pandera schema, when confirmed."""

from dataclasses import dataclass, replace
from typing import Any

from fairway.contract.columns import Contract
from fairway.contract.compare import Change
from fairway.contract.rewrite import rewrite
from fairway.contract.text import parse_contract
from fairway.contract.update import Update, update
from fairway.data.project import CONTRACT, Project, agree
from fairway.data.source import read_table
from fairway.errors import UsageError
from fairway.path.outside_schema import from_pandera, overlay


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """text: what contract.toml would hold; before: what it holds. changes: what differs. left: what stays refused."""

    project: Project
    before: str
    text: str
    contract: Contract
    changes: tuple[Change, ...]
    left: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "contract": CONTRACT,
            "changes": [change.as_dict() for change in self.changes],
            "left": list(self.left),
            "reviewed": self.contract.reviewed,
            "text": self.text,
        }

    def write(self) -> None:
        """Replace the file, if it is still the one that was read. Raises: UsageError when it was edited meanwhile."""
        path = self.project.root / CONTRACT
        if path.read_text(encoding="utf-8") != self.before:
            raise UsageError(f"{CONTRACT} was edited while this ran; nothing was written: run it again")
        draft = path.with_name(f".{CONTRACT}.new")
        draft.write_text(self.text, encoding="utf-8")
        draft.replace(path)


def propose(project: Project, *, pandera: str | None = None) -> Proposal:
    """What contract.toml would be by today's table; with `pandera` ("schema.py:Schema"), what that schema declares.

    Raises: DataError for a table that can't be read; UsageError, ModelCodeError for a schema that can't.
    """
    before = (project.root / CONTRACT).read_text(encoding="utf-8")
    written = parse_contract(before)
    raw = read_table(project.settings.data, project.root)
    if pandera is None:
        made = update(raw.frame, project.contract, project.settings, file=raw.name)
    else:
        made = overlay(project.contract, from_pandera(pandera, folder=project.root))
    contract = _as_written(made, written)
    agree(project.settings, contract)
    text = before if contract == written else rewrite(before, contract)
    return Proposal(
        project=project, before=before, text=text, contract=contract, changes=made.changes, left=made.left
    )  # fmt: skip


def _as_written(made: Update, written: Contract) -> Contract:
    """The new contract with the roles as contract.toml has them: others are fairway.toml's to say."""
    own = {c.name: c for c in written.columns}
    columns = tuple(
        replace(c, role=own[c.name].role, known=own[c.name].known) if c.name in own else c
        for c in made.contract.columns
    )
    return replace(made.contract, columns=columns)
