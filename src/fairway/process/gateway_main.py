"""Entry point of a gateway process: HTTP on a socket that the supervisor opened, control on a Unix socket."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

from fairway import clock
from fairway.errors import UsageError
from fairway.process import control
from fairway.process.http import BoundedProtocol
from fairway.serve import asgi, lifeline
from fairway.serve.access import Access, Token
from fairway.serve.endpoint import Desired
from fairway.serve.gateway import Gateway
from fairway.serve.online import online_place
from fairway.serve.predictor import SocketPredictor

STOP_S = 20
_MAINTAIN_S = 0.25

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fairway.process.gateway_main")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--online", type=Path, required=True, help="used unless FAIRWAY_ONLINE names a server")
    parser.add_argument("--sockets", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options))
    return 0


async def _run(options: argparse.Namespace) -> None:
    gateway = Gateway(
        workspace=options.workspace,
        name=options.name,
        spool=options.spool,
        online=online_place(options.online),
        predictor=lambda spec: SocketPredictor(Path(spec.socket)),
        access=Access(),
    )
    own = control_socket(options.sockets, options.name)
    gateway.peers = lambda: _peers(options.sockets, own)
    config = uvicorn.Config(
        asgi.app(gateway), http=BoundedProtocol, loop="none", ws="none", lifespan="off", access_log=False,
        log_config=None, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=STOP_S, backlog=2048,
    )  # fmt: skip
    server = uvicorn.Server(config)
    commands = await control.serve(own, lambda question: _command(gateway, question))
    upkeep = asyncio.create_task(_maintain(gateway))
    listener = socket.socket(fileno=options.fd)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises what it caught once more when it has ended
    log.info("gateway %s serves (process %d)", options.name, os.getpid())
    try:
        await server.serve(sockets=[listener])  # until SIGTERM or SIGINT; requests in flight are answered first
    finally:
        upkeep.cancel()
        commands.close()
        await gateway.close()


def control_socket(sockets: Path, name: str) -> Path:
    """By the part of the name before the machine's: a socket's path must be short, and its folder is this machine's."""
    return sockets / f"gateway-{name.partition('@')[0]}.sock"


async def _command(gateway: Gateway, question: dict[str, Any]) -> dict[str, Any]:
    op = question["op"]
    if op == "prepare":
        await gateway.prepare(msgspec.convert(question["desired"], Desired))
    elif op == "activate":
        gateway.activate(question["endpoint"], question["epoch"])
    elif op == "drop":
        gateway.drop(question["endpoint"])
    elif op == "expect":
        gateway.expect(question["endpoints"], msgspec.convert(question["tokens"], list[Token]))
        gateway.stale = question.get("stale", False)
    elif op == "seal":
        await gateway.spool.seal()
    elif op == "metrics":
        return {"name": gateway.name, "metrics": gateway.metrics.snapshot()}
    elif op == "tokens_used":
        return {"used": gateway.access.take_used() if gateway.access is not None else {}}
    elif op != "ping":
        raise UsageError(f"unknown op {op!r}")
    return gateway.report()


async def _maintain(gateway: Gateway) -> None:
    while not clock.is_virtual():  # with a virtual clock the supervisor says when to seal
        await asyncio.sleep(_MAINTAIN_S)
        await gateway.maintain()


async def _peers(sockets: Path, own: Path) -> list[tuple[str, dict[str, Any]]]:
    """Counters of the other gateways of this machine; one that doesn't answer is left out."""

    async def one(path: Path) -> tuple[str, dict[str, Any]] | None:
        with contextlib.suppress(Exception):
            answer = await control.ask(path, "metrics", timeout_s=1.0)
            return answer["name"], answer["metrics"]
        return None

    paths = [path for path in sorted(sockets.glob("gateway-*.sock")) if path != own]
    return [found for found in await asyncio.gather(*map(one, paths)) if found is not None]


if __name__ == "__main__":
    sys.exit(main())
