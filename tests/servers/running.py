"""Starts the real processes of `fairway serve` on free ports, and stops them."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from fairway import clock
from fairway.store import schema
from fairway.store.gateways import is_served
from fairway.store.workspace import Workspace

SERVE = """
import sys
from datetime import datetime
from pathlib import Path
from fairway.process.supervisor import serve
from fairway.store.workspace import Workspace
start = datetime.fromisoformat(sys.argv[2]) if len(sys.argv) > 2 else None
serve(Workspace(Path(sys.argv[1])), port=0, console_port=0, virtual_clock=start, say=print)
"""


class Running:
    """A supervised workspace. The client sends the owner's token and closes with the supervisor."""

    def __init__(self, workspace: Workspace, *, virtual_clock: datetime | None = None) -> None:
        self.workspace = workspace
        start = [virtual_clock.isoformat()] if virtual_clock else []
        self.process = subprocess.Popen([sys.executable, "-c", SERVE, str(workspace.root), *start])
        wait_until(lambda: is_served(workspace) is not None or self.process.poll() is not None, 15)
        served = is_served(workspace)
        assert served is not None, "the supervisor ended at start"
        self.url, self.console_url = served["predict"], served["console"]
        self.client = self.new_client()

    def new_client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.workspace.token()}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def ready(self, *, within_s: float = 30) -> None:
        def now() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.client.get("/readyz").status_code == 200
            return False

        assert wait_until(now, within_s), f"not ready after {within_s} s"

    def predict(self, rows: list[dict[str, Any]], *, name: str = "small", **more: Any) -> httpx.Response:
        return self.client.post(f"/v1/models/{name}/predict", json={"rows": rows, **more})

    def gateway_rows(self) -> list[dict[str, Any]]:
        with self.workspace.store.read() as tx:
            query = sa.select(schema.gateway).order_by(schema.gateway.c.gateway)
            return [dict(row._mapping) for row in tx.execute(query)]

    def stop(self, *, within_s: float = 30) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within_s)
        self.workspace.store.close()
        return code


@contextlib.contextmanager
def running(workspace: Workspace, *, virtual_clock: datetime | None = None) -> Iterator[Running]:
    served = Running(workspace, virtual_clock=virtual_clock)
    code = 0
    try:
        yield served
    finally:
        if served.process.poll() is None:
            try:
                code = served.stop()
            except subprocess.TimeoutExpired:
                served.process.kill()
                served.process.wait()
                raise
    assert code == 0, "the supervisor did not end well"


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    limit = clock.elapsed() + within_s
    while clock.elapsed() < limit:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def row(**values: Any) -> dict[str, Any]:
    return {"who": "a", "size": 0.5, "color": "red", **values}


def ids(answer: httpx.Response) -> list[str]:
    return [output["id"] for output in json.loads(answer.content)["outputs"]]
