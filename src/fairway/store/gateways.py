"""Who serves a workspace, and whether the gateways have done what the desired state says."""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.errors import FairwayError, NotServed, Unfinished
from fairway.store import schema
from fairway.store.base import Row, Store
from fairway.store.workspace import Workspace

LIVE = timedelta(seconds=3)  # without a heartbeat for this long, a gateway is not waited for
SERVE, LOCK = "serve.json", "serve.lock"
_LOOK_S = 0.02


def supervisor_name(workspace: Workspace) -> str:
    """Which `fairway serve` this is: the machine and the workspace's folder there. The same after a restart."""
    return f"{socket.gethostname()}-{hashlib.sha256(str(workspace.root).encode()).hexdigest()[:6]}"


def gateway_names(workspace: Workspace, count: int) -> list[str]:
    """g1, g2, ...; where several machines may serve the workspace, each with the supervisor's name: g1@host-5e1f0a."""
    where = f"@{supervisor_name(workspace)}" if workspace.store.is_postgres else ""
    return [f"g{number}{where}" for number in range(1, count + 1)]


def live_gateways(store: Store) -> list[Row]:
    """Rows of table `gateway` with a recent heartbeat, by the database's clock; ordered by name."""
    table = schema.gateway
    with store.read() as tx:
        since = store.database_now(tx) - LIVE
        query = sa.select(table).where(table.c.workspace == store.workspace, table.c.heartbeat_at >= since)
        return list(tx.execute(query.order_by(table.c.gateway)))


def wait_active(workspace: Workspace, endpoint: str, epoch: int, *, timeout_s: float = 30.0) -> list[str]:
    """Wait until every live gateway has activated `epoch` of the endpoint; the names of those that have not in time.

    An empty list means done (also when no gateway lives). The supervisor is told to look at once.
    """
    poke(workspace)
    deadline = clock.elapsed() + timeout_s
    while True:
        behind = [row.gateway for row in live_gateways(workspace.store) if row.active.get(endpoint, -1) < epoch]
        if not behind or clock.elapsed() >= deadline:
            return behind
        time.sleep(_LOOK_S)


def follow_clock(workspace: Workspace) -> None:
    """Live by the clock of what serves the workspace: its virtual one, when it has one."""
    served = is_served(workspace)
    if served is not None and served["virtual_clock"]:
        os.environ[clock.VARIABLE] = served["virtual_clock"]


def is_served(workspace: Workspace) -> dict[str, Any] | None:
    """What `.fairway/serve.json` says (predict, console, pid, virtual_clock) while its supervisor lives, else None."""
    try:
        served: dict[str, Any] = json.loads((workspace.folder / SERVE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    lock = try_lock(workspace.folder / LOCK)
    if lock is not None:  # nobody holds it: the supervisor was killed
        os.close(lock)
        return None
    try:
        os.kill(int(served["pid"]), 0)
    except ProcessLookupError:  # a new supervisor holds the lock, and has not written its own record yet
        return None
    return served


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the file's lock until it is closed or the process ends; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def supervisor_socket(workspace: Workspace) -> Path:
    return workspace.sockets / "supervisor.sock"


def poke(workspace: Workspace) -> bool:
    """Tell the supervisor that a row changed, so that it takes effect at once; False when nobody supervises."""
    try:
        ask_supervisor(workspace, "poke", timeout_s=2.0)
    except (NotServed, Unfinished):
        return False
    return True


def advance_clock(workspace: Workspace, to: Any, *, timeout_s: float = 600.0) -> Any:
    """Move the virtual clock of a served workspace to the time `to`; returns the clock's time once all due is done.

    Raises: NotServed, Unfinished, FairwayError with the supervisor's reason (no virtual clock, a time that is past).
    """
    answer = ask_supervisor(workspace, "advance", to=clock.iso(to), timeout_s=timeout_s)
    return clock.parse_iso(answer["now"])


def ask_supervisor(workspace: Workspace, op: str, *, timeout_s: float, **values: Any) -> Mapping[str, Any]:
    """One question on the supervisor's control socket. Raises: NotServed, Unfinished, FairwayError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        with connection:
            connection.connect(str(supervisor_socket(workspace)))
            connection.sendall(json.dumps({"op": op, **values}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except TimeoutError as exc:
        raise Unfinished(f"the supervisor did not finish {op!r} within {timeout_s:g} s") from exc
    except OSError as exc:
        raise NotServed("nothing serves this workspace; start it with: fairway serve") from exc
    if not line:
        raise NotServed("the supervisor ended")
    answer: dict[str, Any] = json.loads(line)
    if not answer["ok"]:
        raise FairwayError(answer["error"])
    return answer
