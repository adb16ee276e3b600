"""Tokens: who calls, and what they may do. Only hashes are stored; a token is shown once, when it is made."""

import hmac
import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.errors import UsageError
from fairway.store import audit, schema
from fairway.store.base import Row, Store
from fairway.store.workspace import Workspace

ROLES = ("viewer", "scientist", "approver", "admin", "predict", "feedback")
PREFIX = "fw_"

# Everyone who may change something may also look; nobody else's role implies an approver's: that is a second person.
_IMPLIED = {"scientist": ("viewer",), "approver": ("viewer",), "admin": ("viewer", "scientist")}
OWNER_ROLES = ("scientist", "admin", "predict", "feedback")


@dataclass(frozen=True)
class Identity:
    """A caller. `local` is the person at this machine, known by the workspace's own token file."""

    name: str
    roles: frozenset[str]
    local: bool = False

    def may(self, role: str) -> bool:
        """Whether one of the caller's roles is, or includes, `role`."""
        return role in self.roles or any(role in _IMPLIED.get(own, ()) for own in self.roles)


def create(store: Store, *, name: str, roles: Iterable[str], actor: str, expires_at: datetime | None = None) -> str:
    """Make a named token and return it; it can't be shown again.

    Raises: UsageError for an unknown role, no role, an empty name, or a name that is taken.
    """
    wanted = tuple(dict.fromkeys(roles))
    unknown = [role for role in wanted if role not in ROLES]
    if unknown or not wanted:
        found = f"unknown role {unknown[0]!r}" if unknown else "a token needs a role"
        raise UsageError(f"{found}; roles are {', '.join(ROLES)}", field="role")
    if not name.strip() or len(name) > 128 or not name.isprintable():
        raise UsageError(f"{name!r} can't name a token: 1 to 128 printable characters", field="name")
    token = PREFIX + secrets.token_urlsafe(32)
    row = {
        "workspace": store.workspace,
        "name": name,
        "digest": digest_of(token),
        "roles": list(wanted),
        "created_at": clock.now(),
        "expires_at": expires_at,
    }
    with store.write() as tx:
        if store.insert_new(tx, schema.token, row) == 0:
            raise UsageError(f"there is a token named {name!r} already; choose another name", field="name")
        audit.record(store, tx, actor=actor, action="token_created", subject=name, roles=list(wanted))
    return token


def digest_of(token: str) -> str:
    """What is stored of a token: its SHA-256, enough at 256 random bits."""
    return fingerprint.of_bytes(token.encode())


def identify(store: Store, token: str) -> Identity | None:
    """Whose named token this is; None when it is nobody's or has expired. Compared in constant time."""
    return _by_digest(store, digest_of(token))


def _by_digest(store: Store, digest: str) -> Identity | None:
    table = schema.token
    with store.read() as tx:
        rows = tx.execute(sa.select(table).where(table.c.workspace == store.workspace)).all()
    found: Row | None = None
    for row in rows:  # no early end: how long it takes says nothing about which token was nearly right
        if hmac.compare_digest(row.digest, digest):
            found = row
    if found is None or (found.expires_at is not None and found.expires_at <= clock.now()):
        return None
    return Identity(found.name, frozenset(found.roles))


def identify_any(workspace: Workspace, token: str) -> Identity | None:
    """As `identify`, and the workspace's own token (`.fairway/token`) is the person at this machine."""
    return identify_digest(workspace, digest_of(token))


def identify_digest(workspace: Workspace, digest: str) -> Identity | None:
    """As `identify_any`, from a token's hash: for a session that remembers the hash and not the token."""
    if hmac.compare_digest(digest_of(workspace.token()), digest):
        return owner(workspace)
    return _by_digest(workspace.store, digest)


def owner(workspace: Workspace) -> Identity:
    """The person at this machine: git's user.email where there is one. Not an approver: that takes a named token."""
    return Identity(_git_email(workspace.root) or "owner", frozenset(OWNER_ROLES), local=True)


def named(store: Store) -> list[Row]:
    """All named tokens, without their digests."""
    table = schema.token
    columns = (table.c.name, table.c.roles, table.c.created_at, table.c.expires_at)
    with store.read() as tx:
        return list(tx.execute(sa.select(*columns).where(table.c.workspace == store.workspace).order_by(table.c.name)))


@cache
def _git_email(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "config", "user.email"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git on this machine: the person is just "owner"
    return answer.stdout.strip() or None
