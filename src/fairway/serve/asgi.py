"""The thin HTTP face of a gateway: reads a whole request within its limits, hands it over, writes the answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fairway.errors import RequestError
from fairway.serve.answers import Answer, failure
from fairway.serve.gateway import MAX_BODY, Gateway

REQUEST_S = 10.0
SEND_S = 10.0  # a reader that takes longer for a buffer's worth is cut

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def app(gateway: Gateway) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An ASGI application; the server in front bounds headers (see process.http)."""

    async def respond(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = _headers(scope["headers"])
        try:
            body = await _body(headers, receive)
            if body is None:
                return  # the caller has gone
            answer = await gateway.handle(scope["method"], scope["path"], headers, body)
        except RequestError as error:
            answer = failure(error, "r-unread")
            answer[1]["connection"] = "close"  # the rest of the body is not read
        try:
            async with asyncio.timeout(SEND_S):
                await _write(answer, send)
        except TimeoutError:
            raise ConnectionAbortedError("the caller does not read its answer") from None

    return respond


async def _body(headers: dict[str, str], receive: Receive) -> bytes | None:
    """Raises: RequestError 413, 408."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY:
        raise _too_large()
    first = await _next(receive, REQUEST_S)
    if first["type"] == "http.disconnect":
        return None
    if not first.get("more_body"):
        whole: bytes = first.get("body", b"")
        return whole
    loop = asyncio.get_running_loop()
    until = loop.time() + REQUEST_S
    parts = [first.get("body", b"")]
    size = len(parts[0])
    while True:
        if size > MAX_BODY:
            raise _too_large()
        message = await _next(receive, until - loop.time())
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _next(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError:
        raise RequestError(
            f"the request was not complete within {REQUEST_S:.0f} s", code="request_timeout", status=408
        ) from None


def _too_large() -> RequestError:
    return RequestError(f"the body exceeds {MAX_BODY:,} bytes", code="body_too_large", status=413)


async def _write(answer: Answer, send: Send) -> None:
    status, headers, body = answer
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lower-case names; a repeated header counts as its last, except Host and Authorization, which must be single."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if key in headers and key in ("host", "authorization", "content-type"):
            headers[key] = ""  # contradicting: neither counts
        else:
            headers[key] = value.decode("latin-1")
    return headers
