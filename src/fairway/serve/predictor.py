"""Predictors: what scores columns of rows. The gateway's only seam to models; all are async and speak one protocol."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fairway import clock
from fairway.serve import wire

MAX_BATCH = 1000  # rows that waiting requests are merged up to; a larger request goes alone
MAX_WAITING = 20_000  # rows that may wait for one version
_RETRY_S = 0.05

RowEvents = list[dict[str, dict[str, list[Any]]] | None] | None


class PredictTimeout(Exception):
    """No answer within the deadline."""


class PredictFailed(Exception):
    """The version can't answer: its process died on this request, or it is overloaded (`shed`)."""

    def __init__(self, message: str, *, shed: bool = False) -> None:
        super().__init__(message)
        self.shed = shed


class Predictor(Protocol):
    async def predict(
        self, columns: dict[str, list[Any]], at_us: list[int], events: RowEvents, *, deadline_s: float
    ) -> dict[str, Any]:
        """outputs, status, errors, looked_up (lists, one item per row) and ms.

        Raises: PredictTimeout, PredictFailed.
        """
        ...

    async def warm(self) -> None:
        """Returns when the model answers. Raises: PredictFailed, PredictTimeout."""
        ...

    async def close(self) -> None: ...


class InProcessPredictor:
    """Scores in this process, one batch at a time: for a backtest, where nothing else runs."""

    def __init__(self, score: Callable[[dict[str, list[Any]], list[int], RowEvents], dict[str, Any]]) -> None:
        """score: `serve.scoring.score` with its model bound."""
        self._score = score

    async def predict(
        self, columns: dict[str, list[Any]], at_us: list[int], events: RowEvents, *, deadline_s: float
    ) -> dict[str, Any]:
        return self._score(columns, at_us, events)

    async def warm(self) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass
class _Call:
    columns: dict[str, list[Any]]
    at_us: list[int]
    events: RowEvents
    future: "asyncio.Future[dict[str, Any]]"
    until_s: float
    attempts: int = field(default=0)


class SocketPredictor:
    """A model process behind its socket. Natural batching: what arrives while a batch is scored makes the next one.

    When the process dies, calls in flight are asked once more, each alone, of the process that takes its place; one
    that dies again fails only that call. Belongs to one event loop.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._waiting: deque[_Call] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closed = False

    async def predict(
        self, columns: dict[str, list[Any]], at_us: list[int], events: RowEvents, *, deadline_s: float
    ) -> dict[str, Any]:
        if self._closed:
            raise PredictFailed("this version is no longer loaded")
        if self._rows + len(at_us) > MAX_WAITING and self._rows:
            raise PredictFailed("too many rows wait for this version", shed=True)
        loop = asyncio.get_running_loop()
        call = _Call(columns, at_us, events, loop.create_future(), clock.elapsed() + deadline_s)
        self._waiting.append(call)
        self._rows += len(at_us)
        self._start()
        timer = loop.call_later(deadline_s, _expire, call)
        try:
            return await call.future
        finally:
            timer.cancel()
            self._rows -= len(at_us)

    async def warm(self, *, timeout_s: float = 60.0) -> None:
        limit = clock.elapsed() + timeout_s
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(wire.frame({"op": "ping"}))
                    answer = await asyncio.wait_for(wire.receive(reader), max(limit - clock.elapsed(), 0.1))
                finally:
                    writer.close()
                if answer.get("ok"):
                    return
                raise PredictFailed(str(answer.get("error")))
            except TimeoutError as exc:
                raise PredictTimeout(f"the model process did not answer within {timeout_s:.0f} s") from exc
            except (OSError, EOFError) as exc:
                if clock.elapsed() >= limit:
                    raise PredictTimeout(f"no model process after {timeout_s:.0f} s") from exc
                await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Calls in flight are finished first."""
        self._closed = True
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._disconnect()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while batch := self._take():
            try:
                answer = await self._ask(batch)
            except (OSError, EOFError) as exc:
                self._disconnect()
                self._again(batch, exc)
                await asyncio.sleep(_RETRY_S)
                continue
            start = 0
            for call in batch:
                end = start + len(call.at_us)
                if not call.future.done():
                    part = {key: answer[key][start:end] for key in ("outputs", "status", "errors", "looked_up")}
                    call.future.set_result(part | {"ms": answer["ms"]})
                start = end

    def _take(self) -> list[_Call]:
        batch: list[_Call] = []
        rows = 0
        while self._waiting:
            call = self._waiting[0]
            if call.future.done():
                self._waiting.popleft()
                continue
            if batch and (rows + len(call.at_us) > MAX_BATCH or call.attempts or batch[0].attempts):
                break
            batch.append(self._waiting.popleft())
            rows += len(call.at_us)
        return batch

    async def _ask(self, batch: list[_Call]) -> dict[str, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(str(self.socket))
        reader, writer = self._streams
        for call in batch:
            call.attempts += 1
        if len(batch) == 1:
            columns, at_us, events = batch[0].columns, batch[0].at_us, batch[0].events
        else:
            columns = {name: [v for call in batch for v in call.columns[name]] for name in batch[0].columns}
            at_us = [at for call in batch for at in call.at_us]
            events = None
            if any(call.events is not None for call in batch):
                events = [e for call in batch for e in (call.events or [None] * len(call.at_us))]
        message = {"op": "predict", "n": len(at_us), "columns": columns, "at": at_us, "events": events}
        writer.write(wire.frame(message))
        await writer.drain()
        answer: dict[str, Any] = await wire.receive(reader)
        if not answer.get("ok"):
            raise ConnectionError(str(answer.get("error")))
        return answer

    def _again(self, batch: list[_Call], error: Exception) -> None:
        for call in reversed(batch):
            if call.future.done():
                continue
            if call.attempts >= 2:
                call.future.set_exception(
                    PredictFailed(f"the model process died while it scored this request: {error}")
                )
            else:
                self._waiting.appendleft(call)

    def _disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _expire(call: _Call) -> None:
    if not call.future.done():
        call.future.set_exception(PredictTimeout("no answer within the deadline"))
