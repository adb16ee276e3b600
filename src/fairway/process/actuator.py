"""Brings gateways to the desired state: model processes first, then prepare everywhere, then activate everywhere."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from fairway import clock
from fairway.errors import FairwayError, StoreUnavailable, Unfinished
from fairway.process import control
from fairway.process.children import SINGLE_THREAD, Child
from fairway.runtime import package
from fairway.serve import desired
from fairway.serve.access import Token
from fairway.serve.endpoint import STAGING, Desired
from fairway.store import schema
from fairway.store.tokens import OWNER_ROLES
from fairway.store.workspace import Workspace

PREPARE_S = 90.0
_RETRY_S = 1.0
_KEEP_MODEL_S = 15.0  # a model process that nothing needs any more answers what is in flight
_MAX_DEATHS = 3  # of a model process that never answered, before its version counts as broken

log = logging.getLogger(__name__)


def read_desired(workspace: Workspace) -> tuple[list[dict[str, Any]], dict[tuple[str, int], str], list[Token]]:
    """Endpoint rows, artifacts of the versions they may need, and the tokens that are let in."""
    store = workspace.store
    with store.read(patience_s=0.0) as tx:  # who asks has what it read before, and asks again
        table = schema.endpoint
        rows = [
            dict(row._mapping)
            for row in tx.execute(
                sa.select(table).where(table.c.workspace == store.workspace).order_by(table.c.endpoint)
            )
        ]
        version, models = schema.version, sorted({row["model"] for row in rows})
        found = tx.execute(
            sa.select(version.c.model, version.c.version, version.c.artifact).where(
                version.c.workspace == store.workspace, version.c.model.in_(models)
            )
        )
        artifacts = {(row.model, row.version): row.artifact for row in found}
        token = schema.token
        named = tx.execute(
            sa.select(token.c.digest, token.c.roles, token.c.expires_at).where(token.c.workspace == store.workspace)
        ).all()
    tokens = [Token(r.digest, list(r.roles), clock.to_us(r.expires_at) if r.expires_at else None) for r in named]
    return rows, artifacts, [_owner(workspace), *tokens]


def _owner(workspace: Workspace) -> Token:
    import hashlib

    return Token(hashlib.sha256(workspace.token().encode()).hexdigest(), list(OWNER_ROLES))


class Actuator:
    """Belongs to one event loop. `gateways`: control sockets of the gateways by name."""

    def __init__(self, workspace: Workspace, gateways: Mapping[str, Path], *, logs: Path) -> None:
        self.workspace, self.gateways, self._logs = workspace, gateways, logs
        self.models: dict[str, Child] = {}  # by artifact
        self._folders: dict[str, str] = {}
        self._unneeded_since: dict[str, float] = {}
        self._tasks: dict[str, tuple[int, asyncio.Task[None]]] = {}  # endpoint -> (epoch, bringing it about)
        self._failed: dict[str, tuple[int, str, float]] = {}  # endpoint -> (epoch, why, when)
        self.reports: dict[str, dict[str, Any]] = {}
        self._reading = asyncio.Lock()
        self._known: tuple[list[dict[str, Any]], dict[tuple[str, int], str], list[Token]] | None = None
        self.stale_since: float | None = None  # by `clock.elapsed`; None: what is served is what the store says
        self._told: dict[str, Any] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.fill: Callable[[str, set[str]], Awaitable[None]] | None = None  # the online state, for versions to serve

    @property
    def errors(self) -> dict[str, str]:
        return {name: why for name, (_, why, _) in self._failed.items()}

    @property
    def active(self) -> dict[str, dict[str, int | None]]:
        """By endpoint, the oldest epoch that a gateway here answers in, and its champion where the store said it."""
        found: dict[str, dict[str, int | None]] = {}
        champions = {(row["endpoint"], row["epoch"]): row["champion"] for row in (self._known or ([],))[0]}
        for name in sorted({name for report in self.reports.values() for name in report["active"]}):
            epoch = min(report["active"].get(name, 0) for report in self.reports.values())
            found[name] = {"epoch": epoch, "champion": champions.get((name, epoch))}
        return found

    def forget(self, gateway: str) -> None:
        """A gateway died: what it had loaded is gone."""
        self.reports.pop(gateway, None)
        self._told.pop(gateway, None)

    async def look(self) -> bool:
        """Read the store and start what is missing; whether something is under way. Raises: what the store raises.

        While the store can't be reached, what it said last stays desired: a gateway that dies meanwhile comes back.
        """
        async with self._reading:
            rows, artifacts, tokens = await self._read()
            await self._tell(rows, tokens)
            wanted = {row["endpoint"]: row for row in rows}
            for row in rows:
                self._begin(row, artifacts)
            for name in {n for r in self.reports.values() for n in (*r["active"], *r["prepared"])} - wanted.keys():
                await self._everywhere("drop", endpoint=name)
            await self._end_unneeded(rows, artifacts)
        return any(not task.done() for _, task in self._tasks.values())

    async def _read(self) -> tuple[list[dict[str, Any]], dict[tuple[str, int], str], list[Token]]:
        try:
            self._known = await asyncio.to_thread(read_desired, self.workspace)
        except StoreUnavailable as error:
            if self._known is None:
                raise
            if self.stale_since is None:
                self.stale_since = clock.elapsed()
                log.warning("%s; what is served goes on", error)
        else:
            if self.stale_since is not None:
                log.info("the store is back after %.1f s", clock.elapsed() - self.stale_since)
            self.stale_since = None
        return self._known

    async def settle(self) -> bool:
        """Look, and wait until every endpoint is as desired or has failed; whether anything had to be done."""
        worked = await self.look()
        while tasks := [task for _, task in self._tasks.values() if not task.done()]:
            await asyncio.wait(tasks)
        return worked

    async def _tell(self, rows: list[dict[str, Any]], tokens: list[Token]) -> None:
        """What readiness means now, and who is let in: to gateways that do not know yet."""
        names = [r["endpoint"] for r in rows if r["state"] == "live" and r["champion"] is not None]
        expected = [name for name in names if not name.endswith(STAGING)]
        stale = self.stale_since is not None
        message = {"endpoints": expected, "tokens": msgspec.to_builtins(tokens), "stale": stale}

        async def tell(name: str, path: Path) -> None:
            try:
                answer = await control.ask(path, "expect", timeout_s=5.0, **message)
            except (Unfinished, FairwayError):
                self.reports.pop(name, None)
                return
            self._heard(name, answer)
            self._told[name] = message

        await asyncio.gather(
            *(
                tell(name, path)
                for name, path in self.gateways.items()
                if self._told.get(name) != message or name not in self.reports
            )
        )

    def _begin(self, row: dict[str, Any], artifacts: Mapping[tuple[str, int], str]) -> None:
        name, epoch = row["endpoint"], row["epoch"]
        behind = [g for g, report in self.reports.items() if report["active"].get(name) != epoch]
        running = self._tasks.get(name)
        if not behind:
            if running is None or running[1].done():
                self._failed.pop(name, None)
            return
        if running is not None and not running[1].done():
            if running[0] == epoch:
                return
            running[1].cancel()  # a newer epoch, perhaps a rollback, must not wait for one that is still loading
        failed = self._failed.get(name)
        if failed is not None and failed[0] == epoch and clock.elapsed() - failed[2] < _RETRY_S:
            return
        self._tasks[name] = epoch, asyncio.create_task(self._bring(row, artifacts))

    async def _bring(self, row: dict[str, Any], artifacts: Mapping[tuple[str, int], str]) -> None:
        name, epoch = row["endpoint"], row["epoch"]
        try:
            needed = {
                artifacts[row["model"], v] for v in desired.versions_needed(row) if (row["model"], v) in artifacts
            }
            await asyncio.gather(*(self._ensure_model(artifact) for artifact in sorted(needed)))
            if self.fill is not None and needed and not name.endswith(STAGING):  # staging brings its own events
                await self.fill(row["model"], needed)
            state = desired.build(row, artifacts, self._locate)
            prepared = await self._prepare(state, sorted(needed))
            for gateway in await self._everywhere("activate", only=prepared, endpoint=name, epoch=epoch):
                log.info("%s: epoch %d is active on %s", name, epoch, gateway)
            self._failed.pop(name, None)
        except KeyError as error:
            self._fail(name, epoch, f"version {error} is not registered")
        except Exception as error:
            self._fail(name, epoch, str(error))
        finally:
            self.on_change()

    def _fail(self, name: str, epoch: int, why: str) -> None:
        known = self._failed.get(name)
        if known is None or known[:2] != (epoch, why):
            log.error("%s: epoch %d can't be reached, the one before goes on: %s", name, epoch, why)
        self._failed[name] = epoch, why, clock.elapsed()

    async def _prepare(self, state: Desired, artifacts: list[str]) -> list[str]:
        """Load on every living gateway; their names. Raises: FairwayError when one of them can't."""
        message = msgspec.to_builtins(state)
        asked = {
            gateway: asyncio.create_task(
                control.ask(self.gateways[gateway], "prepare", timeout_s=PREPARE_S, desired=message)
            )
            for gateway in self.reports
        }
        try:
            while any(not task.done() for task in asked.values()):
                await asyncio.wait(asked.values(), timeout=0.1)
                for artifact in artifacts:
                    model = self.models[artifact]
                    if model.deaths >= _MAX_DEATHS and model.pid is None:
                        raise FairwayError(f"its model process ends at start (exit code {model.last_exit})")
            prepared = []
            for gateway, task in asked.items():
                try:
                    self._heard(gateway, task.result())
                    prepared.append(gateway)
                except Unfinished:
                    self.forget(gateway)  # it died meanwhile: it will be brought up to date when it is back
            return prepared
        finally:
            for task in asked.values():
                task.cancel()

    async def _everywhere(self, op: str, *, only: list[str] | None = None, **values: Any) -> list[str]:
        names = list(self.reports) if only is None else only
        answers = await asyncio.gather(
            *(control.ask(self.gateways[name], op, timeout_s=10.0, **values) for name in names), return_exceptions=True
        )
        done = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, BaseException):
                log.warning("gateway %s: %s failed: %s", name, op, answer)
                self.forget(name)
            else:
                self._heard(name, answer)
                done.append(name)
        return done

    async def tokens_used(self) -> dict[str, int]:
        """Last uses of tokens by digest, microseconds, since the last call; one that does not answer keeps its."""
        newest: dict[str, int] = {}
        for path in self.gateways.values():
            with contextlib.suppress(Unfinished, FairwayError):
                answer = await control.ask(path, "tokens_used", timeout_s=2.0)
                for digest, at_us in answer["used"].items():
                    newest[digest] = max(at_us, newest.get(digest, 0))
        return newest

    async def seal(self) -> None:
        """Every gateway hands over what it has committed."""
        await self._everywhere("seal")

    def _heard(self, gateway: str, answer: dict[str, Any]) -> None:
        self.reports[gateway] = {key: answer[key] for key in ("prepared", "active", "in_flight")}

    # -- model processes ---------------------------------------------------------------------------------------------

    def _locate(self, artifact: str) -> tuple[str, str]:
        return self._folders[artifact], str(self._socket(artifact))

    def _socket(self, artifact: str) -> Path:
        return self.workspace.sockets / f"model-{artifact[:16]}.sock"

    async def _ensure_model(self, artifact: str) -> None:
        """Raises: TamperFound, StoreError when the package is not whole."""
        if artifact in self.models:
            return
        folder = await asyncio.to_thread(package.materialise, self.workspace, artifact)
        if artifact in self.models:
            return
        self._folders[artifact] = str(folder)
        socket = self._socket(artifact)
        socket.unlink(missing_ok=True)
        self.models[artifact] = Child(
            f"model {artifact[:12]}",
            "fairway.serve.model_process",
            ["--artifact-dir", str(folder), "--artifact", artifact, "--socket", str(socket)],
            output=self._logs / f"model-{artifact[:16]}.log",
            environment=SINGLE_THREAD,
            keys=False,
        )

    async def _end_unneeded(self, rows: list[dict[str, Any]], artifacts: Mapping[tuple[str, int], str]) -> None:
        needed = {
            artifacts[row["model"], v]
            for row in rows
            for v in desired.versions_needed(row)
            if (row["model"], v) in artifacts
        }
        if any(not task.done() for _, task in self._tasks.values()):
            return  # until an epoch is active everywhere, the one before is in use
        for artifact in list(self.models):
            if artifact in needed:
                self._unneeded_since.pop(artifact, None)
                continue
            since = self._unneeded_since.setdefault(artifact, clock.elapsed())
            if clock.elapsed() - since > _KEEP_MODEL_S:
                del self._unneeded_since[artifact]
                await self.models.pop(artifact).stop(grace_s=5.0)
                self._socket(artifact).unlink(missing_ok=True)

    async def close(self) -> None:
        for _, task in self._tasks.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(child.stop(grace_s=5.0) for child in self.models.values()))
        for artifact in self.models:
            self._socket(artifact).unlink(missing_ok=True)
