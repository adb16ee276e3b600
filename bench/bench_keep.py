"""Keeping it: how fast a long audit log is walked, that 500 drawn changes are all found, and what gc costs."""

import contextlib
import random
import time

import sqlalchemy as sa
from common import scratch, table

from fairway import clock, fingerprint
from fairway.errors import FairwayError
from fairway.keep import gc
from fairway.store import audit, schema
from fairway.store.workspace import Workspace

ENTRIES, CHANGES, CHAIN, BLOBS = 88_000, 500, 400, 10_000
TABLE = schema.audit


def fill(workspace: Workspace, n: int) -> None:
    """Entries made like `audit.record` makes them, inserted at once."""
    rows, previous = [], audit.GENESIS
    for number in range(1, n + 1):
        entry = {
            "workspace": workspace.name, "entry": number, "at": clock.now(), "actor": "ana", "action": "rollout.step",
            "subject": f"model-{number % 300}", "previous": previous,
            "detail": {"epoch": number, "shares": {"1": 0.9, "2": 0.1}, "why": None, "rollout": "rollout-9"},
        }  # fmt: skip
        previous = fingerprint.of_value({**entry, "at": clock.iso(entry["at"])})
        rows.append(entry | {"hash": previous})
    with workspace.store.write() as tx:
        tx.execute(sa.insert(TABLE), rows)


def change(workspace: Workspace, draw: random.Random, n: int) -> int:
    """One drawn change of the chain; the number of the first wrong entry."""
    entry = draw.randint(1, n - 1)
    at = TABLE.c.entry == entry
    kind = draw.choice(["value", "hash", "at", "removed", "swapped"])
    with workspace.store.write() as tx:
        if kind == "value":
            tx.execute(sa.update(TABLE).where(at).values({draw.choice(["actor", "action", "subject"]): "eve"}))
        elif kind == "hash":
            tx.execute(sa.update(TABLE).where(at).values(hash=fingerprint.of_bytes(draw.randbytes(8))))
        elif kind == "at":
            tx.execute(sa.update(TABLE).where(at).values(at=clock.from_us(draw.randrange(10**15))))
        elif kind == "removed":
            tx.execute(sa.delete(TABLE).where(at))
        else:
            for old, new in ((entry, 0), (entry + 1, entry), (0, entry + 1)):
                tx.execute(sa.update(TABLE).where(TABLE.c.entry == old).values(entry=new))
    return entry


def found_changes(workspace: Workspace) -> tuple[int, int]:
    """(found with their number, drawn): of the chain and of stored bytes."""
    draw, found = random.Random(19), 0
    fill(workspace, CHAIN)
    rows = [dict(row._mapping) for row in audit.entries(workspace.store)]
    digests = [workspace.blobs.put(draw.randbytes(draw.randint(1, 5_000))) for _ in range(20)]
    for number in range(CHANGES):
        if number % 5 == 4:
            path = workspace.blobs.path(draw.choice(digests))
            before = path.read_bytes()
            place = draw.randrange(len(before))
            path.write_bytes(before[:place] + bytes([before[place] ^ (1 << draw.randrange(8))]) + before[place + 1 :])
            with contextlib.suppress(FairwayError):
                workspace.blobs.get(path.name)
                found -= 1
            found += 1
            path.write_bytes(before)
            continue
        entry = change(workspace, draw, CHAIN)
        found += audit.verify(workspace.store) == entry
        with workspace.store.write() as tx:
            tx.execute(sa.delete(TABLE))
            tx.execute(sa.insert(TABLE), rows)
    return found, CHANGES


def main() -> None:
    long = Workspace.create(scratch())
    fill(long, ENTRIES)
    began = time.perf_counter()
    assert audit.verify(long.store) is None
    walked = time.perf_counter() - began
    found, drawn = found_changes(Workspace.create(scratch()))
    for number in range(BLOBS):
        path = long.blobs.root / f"{number:064x}"[-2:] / fingerprint.of_bytes(str(number).encode())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    began = time.perf_counter()
    gc.collect(long, actor="bench")
    looked = time.perf_counter() - began
    table(
        "keeping it",
        [
            (f"audit verify, {ENTRIES:,} entries", f"{walked:.1f} s", "fast"),
            ("drawn single changes found, with their number", f"{found} of {drawn}", "all"),
            (f"gc, dry run over {BLOBS:,} blobs", f"{looked:.1f} s", ""),
        ],
    )


if __name__ == "__main__":
    main()
