"""`fairway serve`: gateways, console, worker and model processes of one workspace, on this machine, until it is told
to stop. It holds the sockets, so that a gateway that dies and comes back finds its callers still waiting.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway import __version__, clock
from fairway.errors import FairwayError, StoreReadOnly, StoreUnavailable, Unfinished, UsageError
from fairway.process import control, gateway_main, worker
from fairway.process.actuator import Actuator
from fairway.process.children import Child
from fairway.process.grid import grid
from fairway.serve import online
from fairway.serve.spool import seal_orphans
from fairway.store import place, schema, tokens
from fairway.store.changes import Changes
from fairway.store.gateways import (
    LOCK,
    SERVE,
    gateway_names,
    live_gateways,
    supervisor_name,
    supervisor_socket,
    try_lock,
)
from fairway.store.workspace import Workspace

POLL_S = 0.25
HEARTBEAT_S = 1.0
TOKENS_S = 300.0
_LISTEN_S = 1.0
MAX_ROUNDS = 100
SETTLE_S = 3600.0
FILL_S = 600.0
FORGOTTEN = timedelta(days=1)

log = logging.getLogger(__name__)


def serve(
    workspace: Workspace,
    *,
    port: int = 8080,
    console_port: int = 8081,
    gateways: int = 2,
    virtual_clock: datetime | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first.

    port, console_port: 0 = any free one. virtual_clock: start a settable clock at this time, for this workspace.
    Raises: UsageError when the workspace is served already or a port is taken.
    """
    until_s = clock.elapsed() + 1.0
    while (lock := try_lock(workspace.folder / LOCK)) is None and clock.elapsed() < until_s:
        time.sleep(0.02)  # who asks whether the workspace is served holds it for a moment
    if lock is None:
        raise UsageError(f"another `fairway serve` serves {workspace.root}; stop it first")
    (workspace.folder / SERVE).unlink(missing_ok=True)  # of one that was killed
    moved: clock.VirtualClock | None = None
    before = os.environ.get(clock.VARIABLE)
    try:
        if virtual_clock is not None:
            moved = clock.VirtualClock(workspace.dir("run") / "clock", virtual_clock)
            os.environ[clock.VARIABLE] = str(moved.path)
        asyncio.run(_Supervisor(workspace, port, console_port, gateways, moved, say).run())
    finally:
        if virtual_clock is not None:
            os.environ.pop(clock.VARIABLE, None)
            if before is not None:
                os.environ[clock.VARIABLE] = before
        os.close(lock)


def _listen(port: int, *, shared: bool) -> socket.socket:
    """A bound, listening socket; the kernel spreads connections over those that share a port. Raises: UsageError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as exc:
        listener.close()
        raise UsageError(
            f"port {port} can't be used: {exc.strerror}; choose another with --port", field="port"
        ) from exc
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def _free(port: int) -> None:
    """Refuse a port that someone else listens on: with SO_REUSEPORT the kernel would share it with them."""
    if port:
        _listen(port, shared=False).close()


class _Supervisor:
    def __init__(
        self,
        workspace: Workspace,
        port: int,
        console_port: int,
        gateways: int,
        virtual: clock.VirtualClock | None,
        say: Callable[[str], None],
    ) -> None:
        self.workspace, self._virtual, self._say = workspace, virtual, say
        _free(port)
        first = _listen(port, shared=True)
        self.port = first.getsockname()[1]
        self._listeners = [first, *(_listen(self.port, shared=True) for _ in range(gateways - 1))]
        self._console = _listen(console_port, shared=False)
        self.console_port = self._console.getsockname()[1]
        self._names = gateway_names(workspace, gateways)
        self._gateways: dict[str, Child] = {}
        self._others: list[Child] = []
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._moving = asyncio.Lock()
        self._beat_s = 0.0
        self._tokens_s = clock.elapsed()
        self._written: Any = None
        self._read_only = False
        self._filled: set[str] = set()  # artifacts whose look-ups find their history

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        self.workspace.token()
        sockets = self.workspace.sockets
        for stale in sockets.glob("*.sock*"):
            stale.unlink(missing_ok=True)
        logs = self.workspace.dir("serve")
        seal_orphans(self.workspace.dir("spool"))
        try:
            self._forget_rows()  # of an earlier life
        except StoreReadOnly as error:
            self._read_only = True
            self._say(f"{error}. Predictions are answered and kept in the spool; nothing is folded, decided or moved")
        paths = {name: gateway_main.control_socket(sockets, name) for name in self._names}
        self.actuator = Actuator(self.workspace, paths, logs=logs)
        self.actuator.on_change = self._wake.set
        self.actuator.fill = self._fill
        commands = await control.serve(supervisor_socket(self.workspace), self._command)
        for name, listener in zip(self._names, self._listeners, strict=True):
            self._gateways[name] = self._start_gateway(name, listener, logs)
        root = ["--root", str(self.workspace.root)]
        self._others = [
            Child("worker", "fairway.process.worker", root, output=logs / "worker.log"),
            Child(
                "console", "fairway.process.console_main", [*root, "--fd", str(self._console.fileno())],
                output=logs / "console.log", fds=[self._console.fileno()],
            ),
        ]  # fmt: skip
        self._announce()
        embedded = self.workspace.store.file
        if embedded is not None and (wrong := place.warning(embedded.parent)) is not None:
            self._say(f"warning: {wrong}")
        if self._lacks_shared_state():
            self._say(
                "warning: another machine serves this workspace too, and look-ups here find only what was sent here: "
                f"set {online.VARIABLE} to one Redis or Postgres for both"
            )
        threading.Thread(target=self._listen, args=[loop], name="store-changes", daemon=True).start()
        try:
            await self._poll()
        finally:
            (self.workspace.folder / SERVE).unlink(missing_ok=True)
            commands.close()
            await self._end()

    def _lacks_shared_state(self) -> bool:
        """Whether events of views that are sent to another machine's gateways stay unknown to this one's."""
        if not self.workspace.store.is_postgres or "://" in online.online_place(self.workspace.folder / "online.db"):
            return False
        mine = supervisor_name(self.workspace)
        if all(row.supervisor == mine for row in live_gateways(self.workspace.store)):
            return False
        model = schema.model
        with self.workspace.store.read() as tx:
            known = tx.scalars(sa.select(model.c.settings).where(model.c.workspace == self.workspace.name))
            return any(settings.get("sources") for settings in known)

    def _start_gateway(self, name: str, listener: socket.socket, logs: Path) -> Child:
        sockets = self.workspace.sockets
        arguments = [
            "--workspace", self.workspace.name, "--name", name, "--spool", str(self.workspace.dir("spool")),
            "--online", str(self.workspace.folder / "online.db"), "--sockets", str(sockets),
            "--fd", str(listener.fileno()),
        ]  # fmt: skip

        def ended(code: int) -> None:
            gateway_main.control_socket(sockets, name).unlink(missing_ok=True)
            self.actuator.forget(name)
            self._wake.set()

        return Child(
            f"gateway {name}", "fairway.process.gateway_main", arguments,
            output=logs / gateway_main.control_socket(sockets, name).with_suffix(".log").name, fds=[listener.fileno()],
            on_end=ended,
        )  # fmt: skip

    def _announce(self) -> None:
        record = {
            "predict": f"http://127.0.0.1:{self.port}",
            "console": f"http://127.0.0.1:{self.console_port}",
            "pid": os.getpid(),
            "virtual_clock": str(self._virtual.path) if self._virtual else None,
        }
        path = self.workspace.folder / SERVE
        temporary = path.with_name(f"{SERVE}.{os.getpid()}")
        temporary.write_text(json.dumps(record))
        temporary.rename(path)
        self._say(
            f"fairway {__version__}   predict, /metrics {record['predict']}   pages, /docs {record['console']}   "
            "token .fairway/token"
        )
        self._say(f"  {self._standing()}   predictions are logged before they are answered")
        self._say("Ctrl-C stops; requests in flight are answered first.")

    def _standing(self) -> str:
        with self.workspace.store.read() as tx:
            mine = schema.endpoint.c.workspace == self.workspace.name
            rows = list(tx.execute(sa.select(schema.endpoint.c.model, schema.endpoint.c.champion).where(mine)))
            version = schema.version
            newest = tx.execute(
                sa.select(version.c.model, sa.func.max(version.c.version))
                .where(version.c.workspace == self.workspace.name, version.c.verdict == "pass")
                .group_by(version.c.model)
                .order_by(version.c.model)
            ).all()
        live = {row.model: row.champion for row in rows if row.champion is not None}
        waiting = [f"{model}@{number}" for model, number in newest if live.get(model, 0) < number]
        names = f" ({', '.join(waiting[:3])}{', …' if len(waiting) > 3 else ''})" if waiting else ""
        return f"live {len(live)}   ready to deploy {len(waiting)}{names}"

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                await self.actuator.look()
                await self._heartbeat()
                if clock.elapsed() - self._tokens_s >= TOKENS_S:
                    await self._note_tokens()
            except StoreUnavailable as error:
                log.debug("%s", error)  # the actuator has said it once
            except Exception:
                log.exception("the store can't be read; what is served goes on")
            await _first(self._wake.wait(), self._stop.wait(), timeout_s=POLL_S)
        with contextlib.suppress(Exception):  # the last minutes' uses, while the gateways can still be asked
            await asyncio.wait_for(self._note_tokens(), timeout=3.0)

    async def _note_tokens(self) -> None:
        """Gateways open no store: what they know of tokens' last uses is written for them."""
        self._tokens_s = clock.elapsed()
        used = await self.actuator.tokens_used()
        if used:
            times = {digest: clock.from_us(at_us) for digest, at_us in used.items()}
            await asyncio.to_thread(tokens.note_used, self.workspace.store, times)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the loop when the store says that something changed; in a thread of its own, for the driver waits."""
        with Changes(self.workspace.store) as changes:
            while not self._stop.is_set():
                try:
                    changed = changes.wait(_LISTEN_S)
                except StoreUnavailable:
                    time.sleep(POLL_S)  # the loop looks by itself meanwhile
                    continue
                if changed:
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        loop.call_soon_threadsafe(self._wake.set)

    async def _heartbeat(self) -> None:
        """Write the gateways' rows: at once when something changed, else once a second."""
        pids = {name: child.pid for name, child in self._gateways.items()}
        state = json.dumps([pids, self.actuator.reports, self.actuator.errors], sort_keys=True)
        if self._read_only or (state == self._written and clock.elapsed() - self._beat_s < HEARTBEAT_S):
            return
        await asyncio.to_thread(self._write_rows, pids)
        self._written, self._beat_s = state, clock.elapsed()

    def _write_rows(self, pids: dict[str, int | None]) -> None:
        store = self.workspace.store
        with store.write() as tx:
            now = store.database_now(tx)
            address = f"http://127.0.0.1:{self.port}"
            for name, report in list(self.actuator.reports.items()):
                if pids[name] is None:
                    continue
                row = {
                    "workspace": store.workspace,
                    "gateway": name,
                    "supervisor": supervisor_name(self.workspace),
                    "heartbeat_at": now,
                    "pid": pids[name],
                    "prepared": report["prepared"],
                    "active": report["active"],
                    "report": {"url": address, "errors": self.actuator.errors, "format": schema.FORMAT},
                }
                store.upsert(tx, schema.gateway, row)

    def _forget_rows(self) -> None:
        """Of this supervisor's gateways; other machines' stay, but for those that were not heard of for a day.

        An SQLite store has one supervisor, so all rows there are its own. Raises: StoreReadOnly, StoreUnavailable.
        """
        store, table = self.workspace.store, schema.gateway
        with store.write() as tx:
            gone = table.c.workspace == store.workspace
            if store.is_postgres:
                mine = table.c.supervisor == supervisor_name(self.workspace)
                gone &= mine | (table.c.heartbeat_at < store.database_now(tx) - FORGOTTEN)
            tx.execute(sa.delete(table).where(gone))

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _command(self, question: dict[str, Any]) -> dict[str, Any]:
        op = question["op"]
        if op == "poke":
            self._wake.set()
            return {}
        if op == "ping":
            since = self.actuator.stale_since
            stale_s = None if since is None else clock.elapsed() - since
            about = {"pid": os.getpid(), "errors": self.actuator.errors, "stale_s": stale_s}
            return {**about, "active": self.actuator.active}
        if op == "advance":
            return {"now": clock.iso(await self._advance(clock.parse_iso(question["to"])))}
        raise UsageError(f"unknown op {op!r}")

    async def _advance(self, to: datetime) -> datetime:
        """Move the virtual clock, and settle at every full hour on the way. Raises: UsageError, FairwayError."""
        if self._virtual is None:
            raise UsageError("this workspace runs on the real clock; start it with --virtual-clock TIME to move time")
        async with self._moving:
            now = self._virtual.now()
            if to < now:
                raise UsageError(f"the clock stands at {clock.iso(now)} and can't go back to {clock.iso(to)}")
            for at in grid(now, to):
                self._virtual.move(at)
                await self._settle()
            self._virtual.move(to)
            return to

    async def _settle(self) -> None:
        """Seal, fold, tick, jobs, desired state: until nothing changes any more."""
        for _ in range(MAX_ROUNDS):
            await self.actuator.seal()
            answer = await self._ask_worker()
            worked = await self.actuator.settle()
            await self._heartbeat()
            if not answer["changed"] and not worked:
                return
        raise FairwayError(f"desired state still changes after {MAX_ROUNDS} rounds")

    async def _ask_worker(self) -> dict[str, Any]:
        path = worker.control_socket(self.workspace)
        until_s = clock.elapsed() + 30.0
        while not path.exists() and clock.elapsed() < until_s:
            await asyncio.sleep(0.02)  # it is starting
        try:
            return await control.ask(path, "settle", timeout_s=SETTLE_S)
        except Unfinished as error:
            raise FairwayError(f"the worker can't settle: {error}; see .fairway/serve/worker.log") from error

    async def _fill(self, model: str, artifacts: set[str]) -> None:
        """Have the worker fill the online state from history, once for a version: a rollback never waits for it.

        What hinders it must not hinder an epoch: it is logged, and the worker fills what is missing when it can.
        """
        if artifacts <= self._filled:
            return
        path, until_s = worker.control_socket(self.workspace), clock.elapsed() + 10.0
        while not path.exists() and clock.elapsed() < until_s:
            await asyncio.sleep(0.02)  # it is starting
        try:
            await control.ask(path, "fill", timeout_s=FILL_S, model=model)
        except (Unfinished, FairwayError) as error:
            log.warning("%s: its look-ups may lack history: %s", model, error)
        self._filled |= artifacts

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Gateways first: they answer what is in flight, for which they need the model processes."""
        await asyncio.gather(*(child.stop(grace_s=gateway_main.STOP_S + 3) for child in self._gateways.values()))
        await asyncio.gather(*(child.stop(grace_s=3.0) for child in self._others), self.actuator.close())
        for listener in (*self._listeners, self._console):
            listener.close()
        with contextlib.suppress(Exception):
            self._forget_rows()
        for stale in self.workspace.sockets.glob("*.sock*"):
            stale.unlink(missing_ok=True)


async def _first(*waits: Coroutine[Any, Any, Any], timeout_s: float) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
