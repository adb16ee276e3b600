"""Answers that a gateway remembers, so that a retry with the same request id gets the same answer."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from fairway import clock
from fairway.errors import RequestError

KEEP_S = 600.0
MAX_BYTES = 64 * 1024 * 1024
MAX_REPLIES = 50_000


@dataclass
class _Reply:
    body: str
    answer: "asyncio.Future[tuple[int, bytes]]"
    began_s: float
    size: int = 0


class Replies:
    """Bounded in time, number and bytes; the oldest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Reply] = OrderedDict()
        self._bytes = 0

    async def earlier(self, endpoint: str, request_id: str, body: str) -> tuple[int, bytes] | None:
        """The answer to the same request, awaited if it is being made; None when this is the first.

        Raises: RequestError 409 conflict when the id was used with another body.
        """
        self._forget()
        reply = self._kept.get((endpoint, request_id))
        if reply is None:
            return None
        if reply.body != body:
            raise RequestError(
                f"request id {request_id!r} was used with another body in the last 10 minutes; use a new id",
                code="conflict",
                status=409,
                field="request_id",
            )
        answer = await asyncio.shield(reply.answer)
        return None if answer[0] >= 400 else answer

    def begin(self, endpoint: str, request_id: str, body: str) -> None:
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._kept[endpoint, request_id] = _Reply(body, future, clock.elapsed())

    def end(self, endpoint: str, request_id: str, status: int, answer: bytes) -> None:
        """Keep an answer. A refusal wakes those who wait and is forgotten: asked again, it is judged again."""
        reply = self._kept.get((endpoint, request_id))
        if reply is None or reply.answer.done():
            return
        reply.answer.set_result((status, answer))
        if status >= 400:
            del self._kept[endpoint, request_id]
        else:
            reply.size = len(answer) + 200
            self._bytes += reply.size

    def _forget(self) -> None:
        limit = clock.elapsed() - KEEP_S
        while self._kept:
            key, reply = next(iter(self._kept.items()))
            if reply.began_s >= limit and self._bytes <= MAX_BYTES and len(self._kept) <= MAX_REPLIES:
                return
            if not reply.answer.done():
                return
            del self._kept[key]
            self._bytes -= reply.size
