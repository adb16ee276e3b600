"""Signed heads of the audit chain: what tells a cut or rewritten tail from the real one, when a copy is kept elsewhere.

A head names the newest entry and its hash, signed with this workspace's ed25519 key (`.fairway/keys/`, 0600). The
calendar (`fleet.schedules`) writes one a day to the place that FAIRWAY_AUDIT_HEADS names: a folder (another disk, or a
mount that only takes new files) or an s3:// path (a bucket with object lock). Without it nothing is written, and
the doctor says so.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.errors import StoreError, TamperFound, UsageError
from fairway.store import audit, outside, schema
from fairway.store.audit import Chain
from fairway.store.workspace import Workspace

FORMAT = 1
VARIABLE = "FAIRWAY_AUDIT_HEADS"
EVERY = timedelta(days=1)
KEYS, PRIVATE, PUBLIC = "keys", "audit.key", "audit.pub"
_WRITTEN = "audit_head"  # row of `meta`

Outcome = Literal["same", "cut", "rewritten", "wrong key"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest entry of a chain at a time, signed. public_key, signature: hex."""

    workspace: str
    entry: int
    hash: str
    at: str
    public_key: str
    signature: str = ""
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    def signed_part(self) -> bytes:
        return fingerprint.canonical({name: value for name, value in asdict(self).items() if name != "signature"})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A chain beside one head. text: what a person is told."""

    outcome: Outcome
    text: str


def sign(workspace: Workspace) -> Head:
    """A head of the chain as it is now. The workspace's key is made at first use, which is itself an entry."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(_private_key(workspace))
    public = key.public_key().public_bytes_raw().hex()
    _introduce(workspace, public)
    table = schema.audit
    with workspace.store.read() as tx:
        last = tx.execute(
            sa.select(table.c.entry, table.c.hash)
            .where(table.c.workspace == workspace.store.workspace)
            .order_by(table.c.entry.desc())
            .limit(1)
        ).one()
    unsigned = Head(
        workspace=workspace.store.workspace, entry=last.entry, hash=last.hash, at=clock.iso(clock.now()),
        public_key=public,
    )  # fmt: skip
    return Head(**{**vars(unsigned), "signature": key.sign(unsigned.signed_part()).hex()})


def read(data: bytes, *, name: str) -> Head:
    """A head from a file's bytes, its signature checked. name: of the file, for messages.

    Raises: UsageError for what is no head, StoreError for a newer format, TamperFound when the signature does not hold.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        value = json.loads(data)
        if value["format"] > FORMAT:
            raise StoreError(f"{name} has format {value['format']}; this fairway reads up to {FORMAT}")
        head = Head(**value)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(head.public_key))
        signature = bytes.fromhex(head.signature)
    except (ValueError, TypeError, KeyError) as exc:
        raise UsageError(f"{name} is no head of an audit log; one is written by: fairway admin audit head") from exc
    try:
        key.verify(signature, head.signed_part())
    except InvalidSignature as exc:
        raise TamperFound(f"{name} was changed after it was signed: its signature does not hold") from exc
    return head


def compare(workspace: Workspace, chain: Chain, heads: Sequence[Head], *, keys: Sequence[str] = ()) -> Compared | None:
    """The chain (walked with `at` holding the heads' entries) beside heads; the worst finding, None without any head.

    keys: public keys (hex) that are trusted besides this workspace's own.
    """
    trusted = {*keys, *known_keys(workspace)}
    sound = 0
    for head in sorted(heads, key=lambda h: h.entry):
        if head.workspace != workspace.store.workspace or head.public_key not in trusted:
            whose = f"the key {head.public_key[:12]}, which is not this workspace's"
            return Compared(outcome="wrong key", text=f"the head of {head.at[:10]} is signed with {whose}")
        if chain.hashes.get(head.entry) == head.hash:
            sound = head.entry
        elif head.entry > chain.entries and chain.broken_at is None:
            gone = f"entry {head.entry} is" if head.entry == chain.entries + 1 else (
                f"entries {chain.entries + 1:,} to {head.entry:,} are"
            )  # fmt: skip
            return Compared(
                outcome="cut",
                text=f"{gone} gone: the head signed on {head.at[:10]} knows {head.entry:,} entries, this store "
                f"{chain.entries:,}",
            )
        else:
            return Compared(
                outcome="rewritten",
                text=f"entry {head.entry:,} is not the one that was signed on {head.at[:10]}: entries from "
                f"{sound + 1:,} on were written anew",
            )
    if not heads:
        return None
    newest = max(heads, key=lambda h: h.entry)
    return Compared(outcome="same", text=f"head matches the copy signed on {newest.at[:10]} (entry {newest.entry:,})")


def known_keys(workspace: Workspace) -> set[str]:
    """Public keys that the chain introduces, and the one in this workspace's folder."""
    table = schema.audit
    found: set[str] = set()
    with workspace.store.read() as tx:
        mine = sa.and_(table.c.workspace == workspace.store.workspace, table.c.action == "audit_key_created")
        found.update(tx.scalars(sa.select(table.c.subject).where(mine)))
    path = workspace.folder / KEYS / PUBLIC
    if path.is_file():
        found.add(path.read_text().strip())
    return found


# -- copies kept elsewhere -------------------------------------------------------------------------------------------


def elsewhere() -> str | None:
    """The place that FAIRWAY_AUDIT_HEADS names."""
    return os.environ.get(VARIABLE) or None


def write_elsewhere(workspace: Workspace, place: str) -> Head:
    """A head of now, in `place` under its entry's number: without a new entry nothing is added. Raises: StoreError."""
    head = sign(workspace)
    outside.put(place, f"{head.workspace}-{head.entry:010d}.json", head.to_bytes())
    store = workspace.store
    row = {"workspace": store.workspace, "key": _WRITTEN, "value": {"entry": head.entry, "at": head.at, "to": place}}
    with store.write() as tx:
        store.upsert(tx, schema.meta, row)
    return head


def last_written(workspace: Workspace) -> dict[str, Any] | None:
    """Entry, time and place of the newest daily head."""
    table, store = schema.meta, workspace.store
    with store.read() as tx:
        where = sa.and_(table.c.workspace == store.workspace, table.c.key == _WRITTEN)
        found: dict[str, Any] | None = tx.scalar(sa.select(table.c.value).where(where))
    return found


def kept(workspace: Workspace, place: str) -> list[Head]:
    """The heads of this workspace in a place kept elsewhere. Raises: StoreError, TamperFound, UsageError."""
    prefix = f"{workspace.store.workspace}-"
    return [
        read(data, name=f"{place.rstrip('/')}/{name}")
        for name, data in outside.listing(place)
        if name.startswith(prefix) and name.endswith(".json")
    ]


# -- the key ---------------------------------------------------------------------------------------------------------


def _private_key(workspace: Workspace) -> bytes:
    """32 bytes, made at first use; the first of two that start wins."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = workspace.folder / KEYS
    path = folder / PRIVATE
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f".{PRIVATE}-{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    data = path.read_bytes()
    if len(data) != 32:
        raise StoreError(f"{path} is no ed25519 key of 32 bytes; restore it from a backup")
    public = Ed25519PrivateKey.from_private_bytes(data).public_key().public_bytes_raw().hex()
    beside = folder / PUBLIC
    if not beside.exists():
        beside.write_text(public + "\n")
    return data


def _introduce(workspace: Workspace, public: str) -> None:
    """The chain itself says which key signs it."""
    store, table = workspace.store, schema.audit
    mine = sa.and_(
        table.c.workspace == store.workspace, table.c.action == "audit_key_created", table.c.subject == public
    )
    with store.read() as tx:
        if tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine)):
            return
    with store.write() as tx:
        if not tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine)):
            audit.record(store, tx, actor="fairway", action="audit_key_created", subject=public)


def head_file(path: Path) -> Head:
    """Raises: UsageError when there is no such file; otherwise as `read`."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} can't be read: {exc.strerror}", field="head") from exc
    return read(data, name=path.name)
