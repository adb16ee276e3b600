"""The mark of a store that this workspace has left, or is leaving: nobody writes to it by accident."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.errors import StoreMoved
from fairway.store import schema

KEY = "closed"  # of table meta: {"state": "moving" | "arriving" | "moved", "to": …, "set": …, "at": …}


def mark(tx: Connection, workspace: str) -> dict[str, Any] | None:
    """What the mark says; None for a store in use."""
    table = schema.meta
    where = sa.and_(table.c.workspace == workspace, table.c.key == KEY)
    found: dict[str, Any] | None = tx.scalar(sa.select(table.c.value).where(where))
    return found


def shown(name: str) -> str:
    """A store's name for a person: a file by its path.

    >>> shown("sqlite:////home/ana/churn/.fairway/store.db")
    '/home/ana/churn/.fairway/store.db'
    """
    return name.removeprefix("sqlite:///")


def refuse(tx: Connection, workspace: str, *, name: str) -> None:
    """To be asked in every transaction that writes. Raises: StoreMoved where the mark stands."""
    why = reason(tx, workspace, name=name)
    if why is not None:
        raise StoreMoved(why)


def reason(tx: Connection, workspace: str, *, name: str) -> str | None:
    """Why nobody writes here, and what to do; None for a store in use."""
    found = mark(tx, workspace)
    if found is None:
        return None
    here, there = shown(name), shown(found["to"] if "to" in found else found["from"])
    if found["state"] == "moved":
        wanted = ", ".join(f"set {k}={value}" if value else f"unset {k}" for k, value in found["set"].items())
        return (
            f"this workspace was moved from {here} to {there} on {found['at'][:10]}, and nothing more is written here: "
            f"{wanted}"
        )
    if found["state"] == "moving":
        return (
            f"this workspace is being moved to {there} since {found['at'][:16]}Z, and nothing is written until that is "
            "done. If it was interrupted, repeat the same `fairway admin move`, or give it up with "
            "`fairway admin move --cancel`"
        )
    return f"a move from {there} into {here} is not finished: repeat the same `fairway admin move` there first"
