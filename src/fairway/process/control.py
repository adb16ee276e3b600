"""Control sockets: one JSON object per line, one answer per question. Private Unix sockets of the workspace's owner.

A question is {"op": NAME, ...}; an answer {"ok": true, ...} or {"ok": false, "error": TEXT}.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fairway.errors import FairwayError, Unfinished

LIMIT = 16 * 1024 * 1024  # bytes of a line

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = logging.getLogger(__name__)


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Answer questions at `path`; a connection's questions are answered in order, connections side by side."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    answer = {"ok": True, **await handler(json.loads(line))}
                except FairwayError as error:
                    answer = {"ok": False, "error": str(error), "code": error.code}
                except Exception as error:
                    log.exception("control op failed")
                    answer = {"ok": False, "error": f"{type(error).__name__}: {error}", "code": "internal"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(client, path=str(temporary), limit=LIMIT)
    temporary.rename(path)  # takes the place of a dead one's socket
    return server


async def ask(path: Path, op: str, *, timeout_s: float, **values: Any) -> dict[str, Any]:
    """One question. Raises: Unfinished when nobody answers in time, FairwayError with the other side's error."""
    try:
        return await asyncio.wait_for(_ask(path, {"op": op, **values}), timeout_s)
    except TimeoutError as exc:
        raise Unfinished(f"{path.name} did not answer {op!r} within {timeout_s:g} s") from exc
    except (OSError, EOFError) as exc:
        raise Unfinished(f"{path.name} can't be reached: {exc}") from exc


async def _ask(path: Path, question: dict[str, Any]) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=LIMIT)
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise EOFError("it ended")
    answer: dict[str, Any] = json.loads(line)
    if not answer["ok"]:
        raise FairwayError(answer["error"])
    return answer
