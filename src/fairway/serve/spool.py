"""The spool: what a gateway has seen, committed before it is answered, in segments that a worker folds once.

Folders under .fairway/spool: open/<gateway>/ holds the segment being written and a lock that its owner holds while it
lives; sealed/ holds segments that stand alone and wait to be folded. A segment gets its name at its start and keeps
it, so that sealing can be repeated after a death at any step.
"""

import asyncio
import fcntl
import logging
import os
import time
import uuid
from pathlib import Path

import apsw

from fairway import clock
from fairway.data import segment
from fairway.data.segment import Columns, Record
from fairway.errors import RequestError, StoreError

MAX_BYTES = 2 * 1024 * 1024  # its fold holds the store's one writer, for which a rollback would wait

log = logging.getLogger(__name__)


def sealed_folder(spool: Path) -> Path:
    path = spool / segment.SEALED
    path.mkdir(parents=True, exist_ok=True)
    return path


def sealed_segments(spool: Path) -> list[Path]:
    """Segments that wait to be folded."""
    return sorted(sealed_folder(spool).glob("*.seg"))


class Spool:
    """One gateway's part of the log. All methods belong to one event loop's thread."""

    def __init__(self, spool: Path, gateway: str, *, max_bytes: int = MAX_BYTES) -> None:
        """Take the gateway's folder and seal what an earlier owner left. Raises: StoreError if a living one has it."""
        self.root, self.gateway, self.max_bytes = spool, gateway, max_bytes
        self._folder = spool / segment.OPEN / gateway
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._folder, wait_s=5.0)
        if self._lock is None:
            raise StoreError(f"another process writes the log of gateway {gateway!r} in {spool}")
        self._incarnation = uuid.uuid4().hex[:12]
        self._number = 0
        self._connection: apsw.Connection | None = None
        self._path: Path | None = None
        self._noted: set[tuple[str, str]] = set()
        self._bytes = 0
        self._opened_s = 0.0
        self._waiting: list[tuple[Record, Columns, asyncio.Future[None]]] = []
        self._sealing: set[asyncio.Future[None]] = set()
        _seal_left_over(self._folder, sealed_folder(spool))
        seal_orphans(spool)

    def commit(self, record: Record, columns: Columns) -> asyncio.Future[None]:
        """Append; the future ends when the record is committed, with all others of this turn of the event loop.

        columns: what the record's columns are; written once per segment. Fails with RequestError 503 `log_full` when
        the disk takes no more; then the record is not kept.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((record, columns, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            connection = self._connection or self._open()
            notes = {(c.contract, c.owner): c for _, c, _ in waiting if (c.contract, c.owner) not in self._noted}
            rows = [segment.encode(record) for record in (*notes.values(), *(record for record, _, _ in waiting))]
            with connection:
                connection.executemany("insert into record(kind, data) values(?, ?)", rows)
        except (apsw.Error, OSError) as exc:
            log.error("gateway %s: the log can't be written: %s", self.gateway, exc)
            refused = RequestError(
                "the prediction log can't be written (disk full?), so nothing is answered", code="log_full", status=503
            )
            for _, _, future in waiting:
                if not future.done():
                    future.set_exception(refused)
            return
        self._noted |= notes.keys()
        self._bytes += sum(len(data) for _, data in rows)
        for _, _, future in waiting:
            if not future.done():
                future.set_result(None)
        if self._bytes >= self.max_bytes:
            self._detach()

    def _open(self) -> apsw.Connection:
        self._number += 1
        self._path = self._folder / f"{self.gateway}-{self._incarnation}-{self._number:06d}.seg"
        try:
            connection = segment.create(self._path, gateway=self.gateway, opened_us=clock.to_us(clock.now()))
        except (apsw.Error, OSError):
            _remove(self._path)
            raise
        self._connection = connection
        self._bytes, self._opened_s = 0, clock.elapsed()
        self._noted = set()
        return connection

    @property
    def age_s(self) -> float:
        """How long the open segment has had records; 0 when there is none."""
        return clock.elapsed() - self._opened_s if self._connection is not None else 0.0

    def _detach(self) -> None:
        """Begin to seal the open segment; the next record opens a new one, so no answer waits for the sealing."""
        connection, path = self._connection, self._path
        if connection is None or path is None:
            return
        self._connection = self._path = None
        future = asyncio.ensure_future(asyncio.to_thread(_close_and_move, connection, path, sealed_folder(self.root)))
        self._sealing.add(future)
        future.add_done_callback(self._sealed)

    def _sealed(self, future: "asyncio.Future[None]") -> None:
        self._sealing.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            # The records are safe where they are: the next start of this gateway seals the file.
            log.error("gateway %s: a segment can't be sealed yet: %s", self.gateway, error)

    async def seal(self) -> None:
        """Hand all records committed so far to the worker; returns when the file is in sealed/."""
        if self._waiting:
            self._flush()
        self._detach()
        if self._sealing:
            await asyncio.wait(set(self._sealing))

    async def close(self) -> None:
        await self.seal()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def seal_orphans(spool: Path) -> int:
    """Seal the segments of gateways that no longer live; how many. Living owners keep theirs."""
    count = 0
    for folder in sorted((spool / segment.OPEN).glob("*/")):
        lock = _lock(folder, wait_s=0)
        if lock is not None:
            try:
                count += _seal_left_over(folder, sealed_folder(spool))
            finally:
                os.close(lock)
    return count


def _seal_left_over(folder: Path, sealed: Path) -> int:
    count = 0
    for path in sorted(folder.glob("*.seg")):
        try:
            records = segment.recover(path)
        except apsw.Error as exc:
            log.error("log segment %s can't be recovered and is kept in %s: %s", path.name, segment.BROKEN, exc)
            broken = sealed.parent / segment.BROKEN
            broken.mkdir(exist_ok=True)
            for piece in (path, *_beside(path)):
                if piece.exists():
                    piece.rename(broken / piece.name)
            continue
        if records:
            path.rename(sealed / path.name)
            count += 1
        else:
            _remove(path)
    return count


def _close_and_move(connection: apsw.Connection, path: Path, sealed: Path) -> None:
    segment.close(connection)
    path.rename(sealed / path.name)


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _remove(path: Path) -> None:
    for piece in (path, *_beside(path)):
        piece.unlink(missing_ok=True)


def _lock(folder: Path, *, wait_s: float) -> int | None:
    """A descriptor that holds the folder's lock until it is closed or the process ends; None if another has it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    limit = clock.elapsed() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if clock.elapsed() >= limit:
                os.close(descriptor)
                return None
            time.sleep(0.02)
