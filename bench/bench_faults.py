"""Faults under load: gateways and worker killed with -9, and hot swaps. What clients received against the log.

.venv/bin/python bench/bench_faults.py            20 kills each, 200 swaps, about four minutes
.venv/bin/python bench/bench_faults.py --smoke    2 kills each, 10 swaps
"""

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

from common import scratch, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

import small_model
from ledger import Ledger, Received, clients, compare, kill_one
from running import running

from fairway import clock
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CONNECTIONS = 16
Rows = list[tuple[str, str, str]]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--smoke", action="store_true", help="a small size, to see that it runs")
    arguments.add_argument("--seed", type=int, default=7, help="of the moments and victims of the kills")
    options = arguments.parse_args()
    folder = scratch()
    workspace = Workspace.create(folder / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(folder / f"v{version}", leaf=leaf), version)
    killed, bad_kills = kills(workspace, count=2 if options.smoke else 20, seed=options.seed)
    table(f"kill -9 under {CONNECTIONS} connections, two gateways, shadow on, retries under the same id", killed)
    swapped, bad_swaps = swaps(workspace, count=10 if options.smoke else 200)
    table(f"hot swaps under {CONNECTIONS} connections, two gateways", swapped)
    shutil.rmtree(folder)
    return 1 if bad_kills or bad_swaps else 0


def kills(workspace: Workspace, *, count: int, seed: int) -> tuple[Rows, int]:
    """Gateways and worker in turn, `count` times each, at random moments."""
    rollout = {"champion": 1, "challenger": 2, "shares": {"1": 0.5, "2": 0.5}, "shadows": [1, 2]}
    small_model.desire(workspace, epoch=1, **rollout)
    ledger, rng, began = Ledger(), random.Random(seed), clock.elapsed()
    with running(workspace) as served:
        served.ready()
        wait_active(workspace, "small", 1)
        with clients(served, ledger, CONNECTIONS):
            for who in ("gateway", "worker") * count:
                time.sleep(rng.uniform(0.3, 1.5))
                kill_one(served, who, rng)
            time.sleep(1.0)
        took = clock.elapsed() - began
        served.ready()
    with running(workspace) as served:
        served.ready()
        found = compare(workspace, ledger)
    rows = [
        ("kills of gateways, of the worker", f"{count}, {count} in {took:.0f} s (seed {seed})", ""),
        ("predictions received", f"{found.received:,}", ""),
        ("predictions in the log", f"{found.logged:,}", ">= received"),
        ("received but missing in the log", f"{len(found.missing)}", "0"),
        ("in the log twice", f"{len(found.double)}", "0"),
        ("in the log with another version or output", f"{len(found.other)}", "0"),
        ("answers that are no answer", f"{len(ledger.failures)}", "0"),
        ("connections that broke with their gateway", f"{len(ledger.broken)}", ""),
        ("told to come back (503 loading)", f"{len(ledger.refused)}", ""),
        ("longest that a request waited", f"{max(r.received_at - r.sent_at for r in ledger.requests):.1f} s", ""),
    ]
    return rows, len(found.missing) + len(found.double) + len(found.other) + len(ledger.failures)


def swaps(workspace: Workspace, *, count: int) -> tuple[Rows, int]:
    """The champion changes between two versions; every client always asks the same row."""
    small_model.desire(workspace, epoch=2, **small_model.served(1), previous=2)
    ledger, moved, behind = Ledger(), [], 0
    with running(workspace) as served:
        served.ready()
        wait_active(workspace, "small", 2)
        with clients(served, ledger, CONNECTIONS, same_row=True):
            time.sleep(2.0)
            for swap in range(count):
                to, begun = 2 - swap % 2, clock.elapsed()
                small_model.desire(workspace, epoch=3 + swap, **small_model.served(to), previous=3 - to)
                behind += len(wait_active(workspace, "small", 3 + swap))
                moved.append((begun, clock.elapsed(), to))
                time.sleep(0.1)
        ended = clock.elapsed()
    outputs: dict[int, set[float]] = {1: set(), 2: set()}
    for entry in ledger.requests:
        outputs[entry.version].add(entry.output)
    torn = sum(len(values) - 1 for values in outputs.values()) + len(outputs[1] & outputs[2])
    back = sum(count_back(ledger.requests, one, then) for one, then in zip(moved, [*moved[1:], None], strict=True))
    steady = [r for r in ledger.requests if r.received_at < moved[0][0]]
    during = [r for r in ledger.requests if moved[0][0] <= r.sent_at < moved[-1][1]]
    failed = len(ledger.failures) + len(ledger.refused) + len(ledger.broken)
    took = sorted(end - begin for begin, end, _ in moved)
    rate = len(ledger.requests) / (ended - steady[0].sent_at)
    rows = [
        ("swaps", f"{count}", ""),
        ("requests answered", f"{len(ledger.requests):,} ({rate:,.0f}/s)", ">= 100/s"),
        ("failed requests", f"{failed}", "0"),
        ("torn: value not of the version named", f"{torn}", "0"),
        ("back in time: old version, sent after the swap returned", f"{back}", "0"),
        ("gateways that did not follow", f"{behind}", "0"),
        ("a swap takes, median and longest", f"{took[len(took) // 2]:.2f} s, {took[-1]:.2f} s", ""),
        ("p99 of a request, before and during", f"{p99(steady):.0f} ms, {p99(during):.0f} ms", "< 2 x before"),
    ]
    return rows, failed + torn + back + behind


def count_back(requests: list[Received], one: tuple[float, float, int], then: tuple[float, float, int] | None) -> int:
    """Requests sent after the swap `one` returned, answered before the next began, by another version than its own."""
    _, returned, to = one
    until = then[0] if then is not None else float("inf")
    return sum(r.version != to for r in requests if returned <= r.sent_at and r.received_at < until)


def p99(requests: list[Received]) -> float:
    """Milliseconds, as a client on this machine sees it."""
    times = sorted(r.received_at - r.sent_at for r in requests)
    return 1000 * times[min(len(times) - 1, int(0.99 * len(times)))] if times else float("nan")


if __name__ == "__main__":
    sys.exit(main())
