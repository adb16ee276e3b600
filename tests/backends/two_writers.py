"""Processes that register versions and promote them at once: `python two_writers.py URL TIMES` is one of them."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import sqlalchemy as sa

from fairway import clock
from fairway.errors import StoreUnavailable
from fairway.registry import versions
from fairway.rollout import traffic
from fairway.store import audit, schema
from fairway.store.base import Store

MODEL = "churn"


def register_and_promote(store: Store, times: int) -> None:
    for number in range(times):
        new = versions.NewVersion(
            model=MODEL, project_path="/p", run=f"run-{number}", artifact="a" * 64, dataset=None, contract="contract-1",
            verdict="pass", metrics={"auc": 0.8}, checks=[], settings={"risk": "low"}, trained_until=None, author="ana",
        )  # fmt: skip
        with store.write() as tx:
            version = versions.register(store, tx, new)
        with store.write() as tx:
            row = traffic.endpoint(store, tx, MODEL)
            before = row.champion if row is not None else None
            traffic.change(
                store, tx, MODEL, actor="ana", action="promote", now=clock.now(), model=MODEL, champion=version,
                previous=before, shares=traffic.all_to(version),
            )  # fmt: skip


def run_all(url: str, *, processes: int, times: int) -> list[int]:
    """Exit codes of that many processes at once."""
    command = [sys.executable, str(Path(__file__)), url, str(times)]
    started = [subprocess.Popen(command) for _ in range(processes)]
    return [process.wait(600) for process in started]


def faults(store: Store, *, expected: int) -> list[str]:
    """What is wrong afterwards: versions 1..expected without gap or double, one production, a chain that is whole."""
    with store.read() as tx:
        numbers = list(tx.scalars(sa.select(schema.version.c.version).order_by(schema.version.c.version)))
        rows = tx.execute(sa.select(schema.endpoint)).all()
    found = []
    if numbers != list(range(1, expected + 1)):
        found.append(f"versions {numbers[:5]} … {numbers[-5:]}")
    if len(rows) != 1:
        return [*found, f"{len(rows)} productions"]
    promotions = [entry for entry in audit.entries(store, subject=MODEL) if entry.action == "promote"]
    if [entry.detail["epoch"] for entry in promotions] != list(range(1, expected + 1)):
        found.append("epochs with a gap, a double, or out of order")
    if any(b.detail["previous"] != a.detail["champion"] for a, b in pairwise(promotions)):
        found.append("a promotion that did not see the one before it")
    last = promotions[-1].detail["champion"]
    if (rows[0].champion, rows[0].epoch, rows[0].shares) != (last, expected, traffic.all_to(last)):
        found.append(f"production is {rows[0]}")
    if sorted(entry.detail["champion"] for entry in promotions) != numbers:
        found.append("a version promoted twice or never")
    if (broken := audit.verify(store)) is not None:
        found.append(f"the audit chain breaks at {broken}")
    return found


if __name__ == "__main__":
    with Store(sys.argv[1], busy_s=120) as mine:
        try:
            register_and_promote(mine, int(sys.argv[2]))
        except StoreUnavailable as error:
            sys.exit(f"a writer gave up: {error}")
