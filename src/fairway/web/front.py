"""What stands before every route: request ids, the Host and Origin checks, the body limit and the security headers."""

import logging
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.errors import FairwayError, RequestError
from fairway.web.errors import json_answer
from fairway.web.security import Guard

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Front:
    """ASGI middleware; the outermost."""

    def __init__(self, app: ASGIApp, *, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"r-{uuid.uuid4().hex[:16]}"
        scope.setdefault("state", {})["request_id"] = request_id
        headers, read = Headers(scope=scope), 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise _too_large()
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    out.setdefault(name, value)
            await send(message)

        try:
            self.guard.check_host(headers.get("host", ""))
            self.guard.check_origin(scope["method"], headers)
            if int(headers.get("content-length", "0") or "0") > MAX_BODY:
                raise _too_large()
        except (FairwayError, ValueError) as error:
            known = error if isinstance(error, FairwayError) else _bad_length()
            await json_answer(known, request_id)(scope, limited, guarded)
            return
        await self.app(scope, limited, guarded)


def request_id(request: Request) -> str:
    return str(request.state.request_id)


def _too_large() -> RequestError:
    return RequestError(f"the body is larger than {MAX_BODY:,} bytes", code="too_large", status=413)


def _bad_length() -> RequestError:
    return RequestError("the content length or the host is no valid one", code="bad_request", status=400)
