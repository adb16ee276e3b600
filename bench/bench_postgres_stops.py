"""Postgres stopped every 5-40 s, away for 0-2 s, under load: `bench_postgres_stops.py [minutes]`, by default 10."""

import os
import random
import sys
import threading
import time
from pathlib import Path

from common import scratch, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends"))

import small_model
import sqlalchemy as sa
from ledger import Ledger, clients, compare
from postgres_server import PostgresServer, binaries
from running import running
from test_postgres_stops import work_off

from fairway import clock
from fairway.errors import StoreUnavailable
from fairway.store import audit, jobs, schema
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CLIENTS, PAUSE_S = 4, 0.03  # about 100 requests/s
JOBS_EVERY_S = 1.0


def main(minutes: float) -> None:
    if binaries() is None:
        raise SystemExit("skipped: postgres is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer()
    try:
        os.environ["FAIRWAY_STORE"] = server.new_database()
        table(
            f"Postgres stopped every 5-40 s for {minutes:g} min, away 0-2 s, every second one killed",
            run(server, minutes),
        )
    finally:
        server.remove()


def run(server: PostgresServer, minutes: float) -> list[tuple[str, str, str]]:
    folder, rng, ledger, ended = scratch(), random.Random(11), Ledger(), threading.Event()
    workspace = Workspace.create(folder / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(folder / f"v{version}", leaf=leaf), version)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    store, stops, swaps, asked, epoch = workspace.store, 0, 0, [0], 1

    def ask_for_jobs() -> None:
        while not ended.wait(JOBS_EVERY_S):
            try:
                with store.write() as tx:
                    jobs.submit(store, tx, kind="counted", key=str(asked[0]), payload={"n": asked[0]})
                asked[0] += 1
            except StoreUnavailable:
                continue  # the same key again: queued once, whether or not that commit was the last thing it did

    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        threads = [threading.Thread(target=ask_for_jobs), threading.Thread(target=work_off, args=[store, ended])]
        for thread in threads:
            thread.start()
        with clients(served, ledger, CLIENTS, pause_s=PAUSE_S, same_row=True):
            until_s = clock.elapsed() + minutes * 60
            while clock.elapsed() < until_s:
                time.sleep(min(rng.uniform(5, 40), max(0.0, until_s - clock.elapsed())))
                server.stop(kill=stops % 2 == 1)
                time.sleep(rng.uniform(0, 2))
                server.start()
                stops += 1
                epoch += 1
                small_model.desire(workspace, epoch=epoch, **small_model.served(1 + epoch % 2))
                swaps += not wait_active(workspace, "small", epoch, timeout_s=30)
        waiting_s = clock.elapsed() + 30
        while jobs.pending(store) and clock.elapsed() < waiting_s:
            time.sleep(0.1)
        ended.set()
        for thread in threads:
            thread.join()
    with running(workspace) as served:
        served.ready()
        found = compare(workspace, ledger)
    with store.read() as tx:
        counted = {r.name: r.value for r in tx.execute(sa.select(schema.counter)) if r.name.startswith("effect-")}
    failed = len(ledger.failures) + len(ledger.refused) + len(ledger.broken)
    torn = len({(entry.version, entry.output) for entry in ledger.requests}) - 2
    twice = sum(value != 1 for value in counted.values())
    return [
        ("stops; promotions right after them that every gateway activated", f"{stops}; {swaps}", "all"),
        ("failed predictions", f"{failed} of {len(ledger.requests):,}", "0"),
        ("answers that are not their version's", str(torn), "0"),
        (
            "acknowledged and not logged; logged twice; otherwise",
            f"{len(found.missing)}; {len(found.double)}; {len(found.other)}",
            "0; 0; 0",
        ),
        (
            "jobs asked for; not ended; without effect; with two",
            f"{asked[0]}; {jobs.pending(store)}; {asked[0] - len(counted)}; {twice}",
            "0; 0; 0",
        ),
        ("audit chain", "whole" if audit.verify(store) is None else "broken", "whole"),
    ]


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
