"""Tokens: who calls, and what they may do. Only hashes are stored; a token is shown once, when it is made."""

import hmac
import logging
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.errors import StoreError, ThingNotFound, UsageError
from fairway.store import audit, schema
from fairway.store.base import Row, Store
from fairway.store.workspace import Workspace

ROLES = ("viewer", "scientist", "approver", "admin", "predict", "feedback")
PREFIX = "fw_"
USED_EVERY = timedelta(hours=1)  # how exactly the last use of a token is known: a request writes nothing

log = logging.getLogger(__name__)

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
        audit.record(
            store, tx, actor=actor, action="token_created", subject=name, roles=list(wanted),
            expires_at=clock.iso(expires_at) if expires_at else None,
        )  # fmt: skip
    return token


def revoke(store: Store, *, name: str, actor: str, why: str | None = None) -> None:
    """End a named token at once: gateways let it in no more within their next look at the store (0.25 s).

    Raises: ThingNotFound.
    """
    table = schema.token
    with store.write() as tx:
        mine = sa.and_(table.c.workspace == store.workspace, table.c.name == name)
        roles = tx.scalar(sa.select(table.c.roles).where(mine))
        if roles is None:
            raise ThingNotFound(f"no token is named {name!r}; see them with: fairway admin token list", field="name")
        tx.execute(sa.delete(table).where(mine))
        audit.record(store, tx, actor=actor, action="token_revoked", subject=name, roles=list(roles), why=why)


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
    if _long_ago(found.last_used_at, clock.now()):
        try:
            note_used(store, {digest: clock.now()})
        except StoreError as error:  # read-only, or away: who may call is known all the same
            log.warning("the last use of token %s can't be noted: %s", found.name, error)
    return Identity(found.name, frozenset(found.roles))


def note_used(store: Store, used: Mapping[str, datetime]) -> int:
    """Note the last uses of tokens, by digest; those noted within the hour stay as they are. How many were written."""
    table, count = schema.token, 0
    with store.read() as tx:
        rows = tx.execute(
            sa.select(table.c.name, table.c.digest, table.c.last_used_at).where(table.c.workspace == store.workspace)
        ).all()
    late = [row for row in rows if row.digest in used and _long_ago(row.last_used_at, used[row.digest])]
    if late:
        with store.write() as tx:
            for row in late:
                mine = sa.and_(table.c.workspace == store.workspace, table.c.name == row.name)
                same = sa.and_(mine, table.c.digest == row.digest)  # not a new one under the same name
                count += tx.execute(sa.update(table).where(same).values(last_used_at=used[row.digest])).rowcount
    return count


def _long_ago(before: datetime | None, now: datetime) -> bool:
    return before is None or now - before >= USED_EVERY


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
    columns = (table.c.name, table.c.roles, table.c.created_at, table.c.expires_at, table.c.last_used_at)
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
