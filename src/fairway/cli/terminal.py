"""How the command line speaks: result on stdout, progress on stderr, JSON where asked, questions only on a terminal."""

import json as json_module
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from fairway.errors import UsageError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Take the answer shown in [brackets]; ask nothing.")]
WhyOption = Annotated[
    str | None, typer.Option("--why", metavar="TEXT", help="The reason; it is kept in the audit log.")
]


def say(text: str = "") -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """A line about what is going on: never part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit(value: Any, *, json: bool, lines: Callable[[], Sequence[str]]) -> None:
    """The result, once: as JSON, or as the lines a person reads."""
    if json:
        from fairway.store.base import SHOWN_BYTES, jsonable

        say(json_module.dumps(jsonable(value, most_bytes=SHOWN_BYTES), indent=2, ensure_ascii=False))
        return
    for line in lines():
        say(line)


def interactive() -> bool:
    """Whether a person can be asked: input and messages both go to a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, default: str) -> str:
    """One question on the terminal. Call it only when `interactive()`."""
    sys.stderr.write(f"? {question} [{default}]: ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise UsageError("no answer; nothing was done. Give --yes to take the answers in [brackets]")
    return answer.strip() or default


def table(rows: Sequence[Sequence[str]], *, indent: str = "", gap: int = 2, right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as their widest cell; those named in `right` are aligned to the right.

    >>> table([["MODEL", "LIVE"], ["churn", "3"]], right=[1])
    ['MODEL  LIVE', 'churn     3']
    """
    if not rows:
        return []
    count = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    lines = []
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append((indent + (" " * gap).join(cells)).rstrip())
    return lines
