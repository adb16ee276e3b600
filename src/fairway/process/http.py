"""uvicorn's HTTP protocol with limits that an application can't set: time and size of headers, and JSON errors."""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEADERS = 16 * 1024
HEADERS_S = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """A connection that must complete the headers of a request within HEADERS_S and MAX_HEADERS bytes."""

    _reading: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_complete = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_complete and (self.cycle is None or not self.cycle.more_body):
            self._head_complete, self._head_bytes = False, 0  # the next request of this connection
            self._expect_headers()
        if not self._head_complete:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._head_complete and self._head_bytes > MAX_HEADERS and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", f"the headers exceed {MAX_HEADERS:,} bytes")

    def on_headers_complete(self) -> None:
        self._got_headers()
        self._head_complete = True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEADERS:
            self._refuse(431, "headers_too_large", f"the headers exceed {MAX_HEADERS:,} bytes")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "not_http", "this is not an HTTP/1.1 request")

    def _expect_headers(self) -> None:
        self._got_headers()
        self._reading = self.loop.call_later(HEADERS_S, self._too_slow)

    def _got_headers(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, "request_timeout", f"no complete headers within {HEADERS_S:.0f} s")

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = msgspec.json.encode({"error": message, "code": code, "field": None, "request_id": "r-unread"})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
