"""The only source of time: `now()` (real or virtual) and `elapsed()` (monotonic).

A virtual clock is one aligned 64-bit integer, microseconds since 1970 UTC, in a small memory-mapped file that the
supervisor owns and every other process maps read-only: reading it costs no system call, and when a move of the clock
has returned, every process sees the new time. It is used only where FAIRWAY_CLOCK names such a file, which only
`fairway serve --virtual-clock` and the backtest do.
"""

import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

VARIABLE = "FAIRWAY_CLOCK"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class VirtualClock:
    """A settable clock in a file. Only its owner moves it; it never goes back (ValueError)."""

    def __init__(self, path: Path, start: datetime | None = None) -> None:
        """Open `path`; with `start`, create it at that time and be allowed to move it."""
        self.path = path
        if start is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack("<q", to_us(start)))
        access = mmap.ACCESS_WRITE if start is not None else mmap.ACCESS_READ
        with path.open("r+b" if start is not None else "rb") as file:
            self._memory = mmap.mmap(file.fileno(), 8, access=access)

    def now(self) -> datetime:
        return from_us(struct.unpack("<q", self._memory[:8])[0])

    def move(self, to: datetime) -> None:
        if to < self.now():
            raise ValueError(f"the clock stands at {self.now().isoformat()} and can't go back to {to.isoformat()}")
        self._memory[:8] = struct.pack("<q", to_us(to))


_virtual: VirtualClock | None = None
_virtual_path: str | None = None


def now() -> datetime:
    """The current time, aware, UTC: the virtual clock's where FAIRWAY_CLOCK is set, else the machine's."""
    global _virtual, _virtual_path
    path = os.environ.get(VARIABLE)
    if not path:
        return datetime.now(UTC)
    if _virtual is None or path != _virtual_path:
        _virtual, _virtual_path = VirtualClock(Path(path)), path
    return _virtual.now()


def machine_now() -> datetime:
    """The machine's time, never virtual: what the times of files are compared with."""
    return datetime.now(UTC)


def is_virtual() -> bool:
    return bool(os.environ.get(VARIABLE))


def elapsed() -> float:
    """Seconds on a monotonic clock of this process, for deadlines and durations. Never virtual."""
    return time.monotonic()


def to_us(at: datetime) -> int:
    """Microseconds since 1970 UTC. Raises: ValueError for a naive time."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone")
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def iso(at: datetime) -> str:
    """As written in JSON and in the store: UTC, microseconds kept when there are any, "Z"."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """The inverse of `iso`; any ISO 8601 time with a zone. Raises: ValueError without one."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} has no time zone; add Z or an offset")
    return at.astimezone(UTC)
