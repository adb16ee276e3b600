"""A real HTTP server with S3's interface (moto's server mode) on a free port, and a proxy before it that does wrong."""

import http.client
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """Starts at once, keeps everything in memory, ended by `remove`."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        until_s = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until_s, "moto did not start"
                time.sleep(0.05)

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=30).close()
        return name

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Fault:
    """What happens to the next `times` requests that `applies` says yes to.

    kind: a status such as "503"; "slow" (no answer for `seconds`), "cut" (the connection ends without an answer),
    "lost" (done, but the answer never comes), "half" (half the body, then the end), "wrong" (another byte in it).
    """

    kind: str
    times: int = 1
    applies: Callable[[str, str], bool] = lambda method, path: True
    seconds: float = 0.0


@dataclass
class FaultyProxy:
    """Forwards to `endpoint`, except for the faults that are set. seen: (method, path, what was done), in order."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        proxy, lock = self, threading.Lock()
        host = self.endpoint.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Quiet."""

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    fault = next((f for f in proxy.faults if f.times > 0 and f.applies(self.command, self.path)), None)
                    if fault is not None:
                        fault.times -= 1
                    proxy.seen.append((self.command, self.path, fault.kind if fault else "ok"))
                kind = fault.kind if fault else "ok"
                if kind.isdigit():
                    code = {"403": "AccessDenied", "503": "SlowDown", "500": "InternalError"}.get(kind, "Wrong")
                    self._answer(int(kind), {}, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode())
                    return
                if kind == "slow" and fault is not None:
                    time.sleep(fault.seconds)
                if kind in ("slow", "cut"):
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection(host, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
                    upstream.request(self.command, self.path, body=body, headers=headers)
                    answer = upstream.getresponse()
                    data, sent = answer.read(), dict(answer.getheaders())
                finally:
                    upstream.close()
                if kind == "lost":
                    self.close_connection = True
                elif kind == "half":
                    self._answer(answer.status, sent, data, until=len(data) // 2)
                elif kind == "wrong" and data:
                    self._answer(answer.status, sent, bytes([data[0] ^ 1]) + data[1:])
                else:
                    self._answer(answer.status, sent, data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

            def _answer(self, status: int, headers: dict[str, str], data: bytes, *, until: int | None = None) -> None:
                self.send_response_only(status)
                length = headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[:until])
                if until is not None:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that gave up is what some of these tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
