"""Entry point of a job's own process: runs one claimed job of the loop."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fairway.serve import lifeline
from fairway.store.fenced import FencedWorkspace
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace


def main(arguments: list[str] | None = None, *, run: Callable[[Workspace, Claim], bool] | None = None) -> int:
    """run: what does the job; by default `fairway.fleet.jobs.run_job`."""
    parser = argparse.ArgumentParser(prog="fairway.process.job")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--claim", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    signal.signal(signal.SIGTERM, _put_away)
    claim = Claim(**json.loads(options.claim))
    workspace = FencedWorkspace(options.root, os.environ.get("FAIRWAY_WORKSPACE", "default"), held=claim)
    (run or _run_job)(workspace, claim)
    return 0


def _run_job(workspace: Workspace, claim: Claim) -> bool:
    from fairway.fleet.jobs import run_job

    return run_job(workspace, claim)


def _put_away(number: int, frame: object) -> None:
    """Cancelled: leave by the way of an exception, so that what was begun (a staging endpoint) is taken away."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
