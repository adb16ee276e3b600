"""Entry point of a job's own process: runs one claimed job of the loop."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from fairway.serve import lifeline
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fairway.process.job")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--claim", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    from fairway.fleet import jobs

    workspace = Workspace(options.root, os.environ.get("FAIRWAY_WORKSPACE", "default"))
    jobs.run_job(workspace, Claim(**json.loads(options.claim)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
