"""What history is replayed against: the processes of `fairway serve --virtual-clock`, over HTTP."""

import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from fairway import clock
from fairway.errors import NotServed, Unfinished
from fairway.store.gateways import is_served
from fairway.store.workspace import Workspace

_STARTED_S = 60.0
_SETTLED_S = 600.0  # a move of the clock may contain a training


class HttpTarget:
    """A served workspace: gateway and console by their URLs, with the owner's token. A context manager."""

    def __init__(self, workspace: Workspace) -> None:
        """Raises: NotServed when nothing serves the workspace."""
        served: Mapping[str, Any] | None = is_served(workspace)
        if served is None:
            raise NotServed("nothing serves this workspace; start it with: fairway serve")
        self.predict_url, self.console_url = str(served["predict"]), str(served["console"])
        headers = {"Authorization": f"Bearer {workspace.token()}", "Content-Type": "application/json"}
        self._client = httpx.Client(headers=headers, timeout=_SETTLED_S)

    @classmethod
    def wait_for(cls, workspace: Workspace, server: subprocess.Popen[bytes]) -> "HttpTarget":
        """The target once `server` is ready. Raises: Unfinished if it ends or is not ready in a minute."""
        deadline = clock.elapsed() + _STARTED_S
        target = None
        while clock.elapsed() < deadline and server.poll() is None:
            if target is None and is_served(workspace) is not None:
                target = cls(workspace)
            if target is not None and target.ready():
                return target
            time.sleep(0.05)
        if target is not None:
            target.close()
        raise Unfinished(f"the server is not ready after {_STARTED_S:.0f} s (exit code {server.poll()})")

    def ready(self) -> bool:
        """Whether gateway and console answer."""
        try:
            urls = (f"{self.predict_url}/readyz", f"{self.console_url}/healthz")
            return all(self._client.get(url).status_code == 200 for url in urls)
        except httpx.TransportError:
            return False

    def call(self, path: str, body: bytes) -> tuple[int, bytes]:
        answer = self._client.post(self.predict_url + path, content=body)
        return answer.status_code, answer.content

    def advance(self, to: datetime) -> None:
        answer = self._client.post(f"{self.console_url}/api/v1/clock", json={"to": clock.iso(to)})
        answer.raise_for_status()

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> "HttpTarget":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
