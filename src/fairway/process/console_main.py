"""Entry point of the console process: pages and management API on a socket that the supervisor opened."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from datetime import datetime
from pathlib import Path

import uvicorn

from fairway import clock
from fairway.process.http import BoundedProtocol
from fairway.serve import lifeline
from fairway.store.gateways import advance_clock
from fairway.store.workspace import Workspace

STOP_S = 5

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fairway.process.console_main")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    from fairway.web.app import create_app

    workspace = Workspace(options.root, os.environ.get("FAIRWAY_WORKSPACE", "default"))

    def advance(to: datetime) -> datetime:
        moved: datetime = advance_clock(workspace, to)
        return moved

    config = uvicorn.Config(
        create_app(workspace, advance=advance if clock.is_virtual() else None), http=BoundedProtocol, ws="none",
        lifespan="off", access_log=False, log_config=None, server_header=False, timeout_graceful_shutdown=STOP_S,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises what it caught once more when it has ended
    asyncio.run(uvicorn.Server(config).serve(sockets=[socket.socket(fileno=options.fd)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
