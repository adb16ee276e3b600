"""Look-ups of a request's rows in the online state, within their deadline, and the events that go into it.

A look-up that fails or comes late never fails a prediction by itself: its rows go without those values, flagged, or
are refused, as the endpoint's `on_missing` says. What could not be put stays here and is put again, and meanwhile
look-ups of that source count as failed: their answer would lack events that the log has.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fairway import clock
from fairway.data.segment import EventRow
from fairway.errors import RequestError
from fairway.serve.endpoint import Endpoint, View
from fairway.serve.online import Ask, Need, OnlineFailed, OnlineStore, Seen, Slot, entity_text, unpack
from fairway.serve.predictor import RowEvents

T = TypeVar("T")

FAILED = "lookup_failed"
KNOWN_AT = "_known_at"  # as data.views calls it, which a gateway does not import
THREADS = 8  # that wait for a server
REST_S = 1.0  # after a failure the server is asked again only then, so that not every request waits for it
MAX_BEHIND = 1_000_000  # events that wait to be put; what is more is left to the next start, which reads the log

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looked:
    """events: per row, as a model process takes them; None when no version has a view. failed: views by row."""

    events: RowEvents
    failed: list[list[str]]


class Lookups:
    """One gateway's way to the online state. All methods belong to one event loop."""

    def __init__(self, open_store: Callable[[], OnlineStore], *, patient: bool) -> None:
        """open_store: called at the first use, and again while it fails. patient: no deadline (virtual clock)."""
        self._open, self._patient = open_store, patient
        self._store: OnlineStore | None = None
        self._threads: _Threads | None = None
        self._rest_until_s = 0.0
        self._behind: list[tuple[str, list[EventRow]]] = []
        self._retry: asyncio.Task[None] | None = None
        self._slots: set[Slot] = set()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def find(self, endpoint: Endpoint, columns: dict[str, list[Any]], at_us: Sequence[int]) -> Looked:
        """Events for every row, for the views of all versions. Raises: RequestError 503 lookup_failed if so asked."""
        views = {view for version in endpoint.versions.values() for view in version.views}
        if not views:
            return Looked(None, [[] for _ in at_us])
        assert endpoint.settings is not None
        behind = {source for source, _ in self._behind}
        failed = {view for view in views if view.source in behind}
        asks, rows = _asks(views - failed, columns, at_us)
        limits, why = endpoint.settings.endpoint, "the online state is behind the log"
        found: list[list[Seen]] = []
        try:
            found = await self._read(asks, limits.look_up_deadline.total_seconds()) if asks else []
        except OnlineFailed as error:
            asks, rows, failed, why = [], [], views, str(error)
        names = sorted({view.name for view in failed})
        if names:
            if limits.on_missing == "refuse":
                raise RequestError(
                    f"the values of {', '.join(names)} can't be looked up now; try again",
                    code="lookup_failed",
                    status=503,
                )
            log.warning("%s: look-ups of %s failed: %s", endpoint.name, ", ".join(names), why)
        return Looked(_by_row(asks, found, rows, len(at_us)), [list(names) for _ in at_us])

    async def _read(self, asks: list[Ask], deadline_s: float) -> list[list[Seen]]:
        if self._store is not None and self._store.local:
            return self._store.read(asks)
        if clock.elapsed() < self._rest_until_s and not self._patient:
            raise OnlineFailed("it failed a moment ago")
        try:
            return await self._away(lambda store: store.read(asks), None if self._patient else deadline_s)
        except OnlineFailed:
            self._rest_until_s = clock.elapsed() + REST_S
            raise

    async def _away(self, work: Callable[[OnlineStore], T], deadline_s: float | None) -> T:
        """The work done with the store: at once where it is local, else by a thread, and waited for so long."""
        if self._store is not None and self._store.local:
            return work(self._store)
        if self._store is None:
            await self._connect(deadline_s)
        store = self._store
        assert store is not None
        if store.local:
            return work(store)
        return await self._in_thread(lambda: work(store), deadline_s)

    async def _connect(self, deadline_s: float | None) -> None:
        store = await self._in_thread(self._open, deadline_s)
        if self._store is None:
            self._store = store
        else:
            store.close()  # another request was quicker

    async def _in_thread(self, work: Callable[[], T], deadline_s: float | None) -> T:
        self._threads = self._threads or _Threads(THREADS)
        try:
            return await asyncio.wait_for(self._threads.run(work), deadline_s)
        except TimeoutError as exc:
            raise OnlineFailed(f"no answer within {(deadline_s or 0) * 1000:.0f} ms") from exc

    # -- writing -----------------------------------------------------------------------------------------------------

    async def watch(self, endpoint: Endpoint) -> None:
        """Be ready for the look-ups of an endpoint's views. A server that is away does not hold it up."""
        slots = {Slot(v.source, v.entity) for version in endpoint.versions.values() for v in version.views}
        if slots <= self._slots:
            return
        self._slots |= slots
        try:
            await self._away(lambda store: store.watch(sorted(slots)), 5.0)
        except OnlineFailed as error:  # it is asked again by the first look-up
            log.error("%s: the online state can't be prepared now: %s", endpoint.name, error)

    async def put(self, source: str, rows: list[EventRow]) -> None:
        """Keep events that are committed to the log. Where that fails they wait here, and are put as soon as it can."""
        if not self._behind:
            try:
                await self._away(lambda store: store.put(source, rows), None if self._patient else 2.0)
                return
            except OnlineFailed as error:
                log.error("events of %s wait for the online state: %s", source, error)
        self._behind.append((source, rows))
        if sum(len(waiting) for _, waiting in self._behind) > MAX_BEHIND:
            dropped, lost = self._behind.pop(0)
            log.error("%d events of %s are left to the next start", len(lost), dropped)
        if self._retry is None or self._retry.done():
            self._retry = asyncio.get_running_loop().create_task(self._catch_up())

    async def _catch_up(self) -> None:
        while self._behind:
            source, rows = self._behind[0]
            try:
                await self._away(lambda store, s=source, r=rows: store.put(s, r), 10.0)  # type: ignore[misc]
                self._behind.pop(0)
            except OnlineFailed:
                await asyncio.sleep(REST_S)
        log.info("the online state is up to date again")

    def columns_of(self, source: str) -> frozenset[str]:
        """The columns that events of a source are looked up by."""
        return frozenset(slot.column for slot in self._slots if slot.source == source)

    @property
    def behind(self) -> int:
        """Events that wait to be put."""
        return sum(len(rows) for _, rows in self._behind)

    async def prune(self, endpoints: Iterable[Endpoint], *, horizon_us: int) -> None:
        """Forget events that no view of a live version reaches any more. What fails now is done the next time."""
        needs = needs_of(view for e in endpoints for version in e.versions.values() for view in version.views)
        try:
            await self._away(lambda store: store.prune(needs, horizon_us=horizon_us), 60.0)
        except OnlineFailed as error:
            log.warning("the online state can't be pruned now: %s", error)

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._threads is not None:
            self._threads.close()
        if self._store is not None:
            self._store.close()


def needs_of(views: Iterable[View]) -> list[Need]:
    """How far back each slot is looked up."""
    found: dict[Slot, tuple[int, int]] = {}
    for view in views:
        window, latest = found.get(slot := Slot(view.source, view.entity), (0, 0))
        if view.latest:
            found[slot] = window, max(latest, view.window_us)
        else:
            found[slot] = max(window, view.window_us), latest
    return [Need(slot, *spans) for slot, spans in sorted(found.items())]


def _asks(
    views: Iterable[View], columns: dict[str, list[Any]], at_us: Sequence[int]
) -> tuple[list[Ask], list[list[int]]]:
    """Each question once, and the rows that ask it. Of views on one slot the widest window counts."""
    widest: dict[tuple[Slot, bool], int] = {}
    for view in views:
        place = Slot(view.source, view.entity), view.latest
        widest[place] = max(widest.get(place, 0), view.window_us)
    found: dict[Ask, list[int]] = {}
    for (slot, last), window_us in sorted(widest.items()):
        for row, value in enumerate(columns.get(slot.column, ())):
            if value is not None:
                ask = Ask(slot, entity_text(value), at_us[row] - window_us, at_us[row], last)
                found.setdefault(ask, []).append(row)
    return list(found), list(found.values())


def _by_row(asks: Sequence[Ask], found: Sequence[Sequence[Seen]], rows: Sequence[Sequence[int]], n: int) -> RowEvents:
    """Events as columns per row and source, for n rows; an event that several views see is there once."""
    seen: list[dict[str, dict[str, Seen]]] = [{} for _ in range(n)]
    for ask, events, asked in zip(asks, found, rows, strict=True):
        for row in asked:
            if events:
                seen[row].setdefault(ask.slot.source, {}).update((event.key, event) for event in events)
    return [
        {
            source: as_columns([unpack(e.data) | {KNOWN_AT: e.known_us} for e in sorted(events.values(), key=_order)])
            for source, events in row.items()
        }
        or None
        for row in seen
    ]


def _order(event: Seen) -> tuple[int, str]:
    return event.at_us, event.key


def as_columns(events: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for event in events for name in event))
    return {name: [event.get(name) for event in events] for name in names}


class _Threads:
    """Threads that wait for a server. Daemons: a server that hangs must not keep this process from ending."""

    def __init__(self, n: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._n, self._started = n, 0
        self._busy = 0

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Raises (by the future): OnlineFailed when all threads wait already."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._busy >= self._n:
            future.set_exception(OnlineFailed("its server hangs"))
            return future
        self._busy += 1
        if self._busy > self._started:
            self._started += 1
            threading.Thread(target=self._run, daemon=True, name="online").start()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._busy -= 1
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as exc:
                error = exc
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._work.put(job)
        return future

    def close(self) -> None:
        for _ in range(self._started):
            self._work.put(None)

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            job()
