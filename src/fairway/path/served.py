"""Speaking to what serves this workspace, as its owner."""

import contextlib
import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fairway.errors import NotServed, Unfinished
from fairway.store.gateways import SERVE, ask_supervisor
from fairway.store.workspace import Workspace

CALL_S = 60.0

Call = Callable[[str, bytes], tuple[int, bytes]]


def served_call(workspace: Workspace) -> Call:
    """call(path, body) -> (status, body): a POST to the served endpoint with the owner's token.

    Raises: NotServed when nothing serves this workspace.
    """
    path = workspace.folder / "serve.json"
    try:
        where = urlsplit(json.loads(path.read_text())["predict"])
    except (FileNotFoundError, ValueError, KeyError) as exc:
        raise NotServed(
            "Nothing serves this workspace, so there is no traffic to move. Start it with: fairway serve"
        ) from exc
    token = workspace.token()

    def call(route: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=CALL_S)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", route, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return call


def without_store(workspace: Workspace) -> dict[str, Any]:
    """What this machine serves, asked of the processes alone.

    Returns: ready, what /readyz says or None when nobody answers; active, by endpoint its champion and epoch.
    """
    active: dict[str, Any] = {}
    with contextlib.suppress(NotServed, Unfinished):
        active = dict(ask_supervisor(workspace, "ping", timeout_s=5.0)["active"])
    ready = None
    with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        where = urlsplit(json.loads((workspace.folder / SERVE).read_text())["predict"])
        connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=5.0)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            ready = json.loads(connection.getresponse().read())
    return {"ready": ready, "active": active}
