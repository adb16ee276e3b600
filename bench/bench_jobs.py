"""Jobs whose workers are killed with -9, on SQLite and on a Postgres that is stopped in between: each effect once.

.venv/bin/python bench/bench_jobs.py            500 jobs and 100 kills on each engine, about ten minutes
.venv/bin/python bench/bench_jobs.py --smoke    40 jobs and 10 kills
"""

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

from common import scratch, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends"))

import counting_jobs
from counting_jobs import Crew
from postgres_server import PostgresServer, binaries

from fairway import clock
from fairway.store import jobs
from fairway.store.base import Store
from fairway.store.workspace import Workspace

WORKERS = 4
Rows = list[tuple[str, str, str]]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--smoke", action="store_true", help="a small size, to see that it runs")
    arguments.add_argument("--seed", type=int, default=7, help="of the moments and victims of the kills")
    options = arguments.parse_args()
    n, kills = (40, 10) if options.smoke else (500, 100)
    folder, bad = scratch(), 0
    with Store(f"sqlite:///{folder / 'rates.db'}") as store:
        table("one worker's bookkeeping of a job, no work in it", [("SQLite", rate(store), "")])
    workspace = Workspace.create(folder / "sqlite")
    with workspace.store as store:
        rows, wrong = through_kills(workspace, store, n=n, kills=kills, seed=options.seed)
    table(f"SQLite, {WORKERS} workers", rows)
    bad += wrong
    if binaries() is None:
        print("\nskipped: no postgres on this machine")
    else:
        server = PostgresServer()
        try:
            with Store(server.new_database()) as store:
                table("one worker's bookkeeping of a job, no work in it", [("Postgres", rate(store), "")])
            url = server.new_database()
            with Store(url) as store:
                at = Workspace.create(folder / "postgres")
                rows, wrong = through_kills(at, store, n=n, kills=kills, seed=options.seed, url=url, server=server)
            table(f"Postgres that is stopped in between, {WORKERS} workers", rows)
            bad += wrong
        finally:
            server.remove()
    shutil.rmtree(folder)
    return 1 if bad else 0


def rate(store: Store, n: int = 200) -> str:
    """Submit, claim and finish, one after the other."""
    began = clock.elapsed()
    for number in range(n):
        with store.write() as tx:
            jobs.submit(store, tx, kind="empty", key=str(number), payload={})
        claim = jobs.claim(store, owner="bench")
        assert claim is not None
        with store.write() as tx:
            jobs.finish(store, tx, claim)
    return f"{1000 * (clock.elapsed() - began) / n:.1f} ms"


def through_kills(
    workspace: Workspace,
    store: Store,
    *,
    n: int,
    kills: int,
    seed: int,
    url: str | None = None,
    server: PostgresServer | None = None,
) -> tuple[Rows, int]:
    """Table rows, and how many of the promises were broken."""
    rng, began = random.Random(seed), clock.elapsed()
    stops = [0, clock.elapsed() + 5.0]  # how often, and when next

    def also() -> None:
        if server is not None and clock.elapsed() > stops[1]:
            server.stop(kill=rng.random() < 0.5)
            time.sleep(rng.uniform(0.0, 2.0))
            server.start()
            stops[:] = [stops[0] + 1, clock.elapsed() + rng.uniform(5.0, 20.0)]

    names = counting_jobs.submit(store, n, seed=seed, seconds=1.0)
    with Crew(workspace, size=WORKERS, url=url) as crew:
        counting_jobs.disturb(crew, store, kills=kills, rng=rng, pause_s=1.2, also=also)
        left = jobs.pending(store)
        counting_jobs.wait_for(store, within_s=1200)
    took, found = clock.elapsed() - began, counting_jobs.look(store, names)
    done = found.statuses.get("done", 0)
    rows = [
        ("jobs, kills -9 of a worker", f"{n}, {kills} in {took:.0f} s (seed {seed})", ""),
        ("stops of the server", f"{stops[0]}", "")
        if server is not None
        else ("jobs left at the last kill", f"{left}", ""),
        ("attempts at them", f"{found.attempts}", ""),
        ("jobs done", f"{done}", f"{n}"),
        ("effects that are missing", f"{len(found.missing)} of {2 * n}", "0"),
        ("effects that are there twice", f"{len(found.double)}", "0"),
    ]
    return rows, n - done + len(found.missing) + len(found.double)


if __name__ == "__main__":
    sys.exit(main())
