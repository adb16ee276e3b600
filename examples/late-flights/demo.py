"""The whole loop on real flights: train, serve, deploy over HTTP, weeks of traffic, a retrain through gate and rollout.

This script only starts things, sends rows, events and outcomes, and moves the clock: it calls no retrain, promote or
rollback. FAULT=labels_shuffled reports each day's outcomes to the wrong flights. --keep stays up afterwards.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import prepare

from fairway.store import audit
from fairway.store.workspace import Workspace
from fairway.testing.replay import History, Replayed, SourceHistory, replay
from fairway.testing.targets import HttpTarget

HERE = Path(__file__).parent
FAIRWAY = [sys.executable, "-m", "fairway.cli.main"]
START = datetime(2014, 5, 1, 7, tzinfo=UTC)
FILES = ("fairway.toml", "contract.toml", "model.py")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=21, help="days of traffic to replay, from 1 May 2014")
    arguments.add_argument("--folder", type=Path, default=HERE / ".demo", help="made anew; holds project and state")
    arguments.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")
    options = arguments.parse_args()
    fault, began = os.environ.get("FAULT", ""), time.perf_counter()
    if fault not in ("", "labels_shuffled"):
        raise SystemExit(f"FAULT={fault} is unknown; there is: labels_shuffled")

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - began:5.1f} s] {text}", flush=True)

    end = START + timedelta(days=options.days)
    prepare.main()
    project = make_project(options.folder)
    server = subprocess.Popen(
        [*FAIRWAY, "serve", "--port", "0", "--console-port", "0", "--virtual-clock", START.isoformat()],
        cwd=project,
        stdout=(project / "serve.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        workspace = Workspace.find(project)
        target = HttpTarget.wait_for(workspace, server)
        say(f"serving {target.predict_url}; pages {target.console_url}; the clock stands at {START:%d %b %Y %H:%M} UTC")
        run(project, "train")
        say("trained on January to April; deploying over HTTP")
        run(project, "deploy")
        history = later(START, end, shuffle=fault == "labels_shuffled")
        say(f"replaying {options.days} days{': outcomes go to the wrong flights' if fault else ''}")
        told: set[str] = set()

        def progress(at: datetime, done: Replayed) -> None:
            if at.hour == 7 and at.minute == 0:
                say(f"{at:%d %b}  {done.predictions:,} predictions, {done.labels:,} outcomes")
                tell_news(project, told, say)

        with target:
            replay(target, history, start=START, end=end, say=progress)
        say("replayed")
        tell_news(project, told, say)
        for command in (
            ["status"],
            ["show", "versions"],
            ["show", "rollouts"],
            ["show", "reviews"],
            ["show", "alarms"],
        ):
            run(project, *command)
        say("done")
        print(
            f"\nLook at it:  cd {os.path.relpath(project)}  then  fairway status, fairway show rollout-2\n"
            f"Pages: {target.console_url} (token in .fairway/token)"
            + (
                "   up until Ctrl-C"
                if options.keep
                else f"   start again with: fairway serve --virtual-clock {end:%Y-%m-%dT%H:%MZ}"
            )
        )
        if options.keep:
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    return 0


def make_project(folder: Path) -> Path:
    """A fresh copy of the example, so that the demo always starts from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    for name in FILES:
        shutil.copy(HERE / name, folder / name)
    for name in ("flights.parquet", "departures.parquet"):
        shutil.copy(HERE / "data" / name, folder / "data" / name)
    Workspace.create(folder)
    return folder


def later(start: datetime, end: datetime, *, shuffle: bool) -> History:
    """What happened from `start` to `end`, and the departures of the two hours before."""
    every = pl.read_parquet(HERE / "data" / "later.parquet")
    rows = every.filter(pl.col("decide_at").is_between(start, end, closed="left"))
    if shuffle:
        outcomes = rows["late"].to_list()
        random.Random(0).shuffle(outcomes)
        rows = rows.with_columns(late=pl.Series(outcomes, dtype=pl.String))
    before = start - timedelta(hours=2)
    departures = every.filter(pl.col("departed_at").is_between(before, end, closed="left")).select(
        "flight_id", "departed_at", "origin", "dep_delay"
    )
    request = ("flight_id", "decide_at", "carrier", "origin", "dest", "distance", "minute_of_day", "weekday")
    return History(
        endpoint="late-flights",
        rows=rows.select(*request, "late", "arrived_at"),
        request=request,
        at="decide_at",
        target="late",
        label_at="arrived_at",
        sources=(SourceHistory("departures", "departed_at", departures),),
    )


def run(project: Path, *command: str) -> None:
    print("$ fairway", *command, flush=True)
    done = subprocess.run([*FAIRWAY, *command], cwd=project, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"fairway {' '.join(command)} ended with {done.returncode}")


def tell_news(project: Path, told: set[str], say: Callable[[str], None]) -> None:
    """Say what the loop has done since the last look: its audit entries."""
    for entry in audit.entries(Workspace.find(project).store):
        action = entry.action.replace("_", " ").replace(".", ": ")
        line = f"  the loop, {entry.at:%d %b %H:%M}   {action} {entry.subject}"
        if line not in told and not entry.action.startswith("staging"):
            told.add(line)
            say(line)


if __name__ == "__main__":
    sys.exit(main())
