"""A model process: runs the project's code for one version, behind a Unix socket.

    python -m fairway.serve.model_process --artifact-dir DIR --artifact HASH --socket PATH

It answers frames (see serve.wire) one after the other: {"op": "predict", "n", "columns", "at", "events"} and
{"op": "ping"}. A batch that takes longer than the endpoint's deadline ends the process by SIGALRM, whatever its code
is busy with; the supervisor starts it again.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fairway.errors import FairwayError
from fairway.runtime import loader
from fairway.serve import lifeline, scoring, wire
from fairway.serve.warming import warm_rows

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fairway.serve.model_process")
    parser.add_argument("--artifact-dir", type=Path, required=True)
    parser.add_argument("--artifact", default=None)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent", type=int, default=None)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if options.parent is not None:
        lifeline.die_with(options.parent)
    try:
        model = loader.load(options.artifact_dir, artifact=options.artifact)
    except FairwayError as error:
        log.error("the version can't be loaded: %s", error)
        return error.exit_code
    warm_rows(model, options.artifact_dir)
    deadline_s = model.settings.endpoint.deadline.total_seconds()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    asyncio.run(_serve(model, options.socket, deadline_s=deadline_s, artifact=options.artifact))
    return 0


async def _serve(model: Any, socket: Path, *, deadline_s: float, artifact: str | None) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the supervisor's to handle
    busy = asyncio.Lock()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await wire.receive(reader)
                if message["op"] == "ping":
                    answer: dict[str, Any] = {"ok": True, "artifact": artifact}
                elif message["op"] == "predict":
                    async with busy:
                        signal.setitimer(signal.ITIMER_REAL, deadline_s)
                        try:
                            answer = scoring.score(model, message["columns"], message["at"], message["events"])
                        finally:
                            signal.setitimer(signal.ITIMER_REAL, 0.0)
                else:
                    answer = {"ok": False, "error": f"unknown op {message['op']!r}"}
                writer.write(wire.frame(answer))
                await writer.drain()
                await asyncio.sleep(0)  # let the other gateway's batch have its turn
        except (EOFError, ConnectionError):
            return
        finally:
            writer.close()

    temporary = socket.with_name(f"{socket.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(client, path=str(temporary))
    temporary.rename(socket)  # the socket appears only when it answers
    async with server:
        await stop.wait()
        server.close()
        async with busy:
            pass


if __name__ == "__main__":
    sys.exit(main())
