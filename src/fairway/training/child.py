"""Project code in a process of its own: bounded in time, memory and output, and gone with everything it started.

`run_child` says how it ended by what the child recorded, never by its exit code: code that calls sys.exit(0) half way
has failed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from fairway import clock
from fairway.contract.settings import Settings
from fairway.errors import ModelCodeError
from fairway.runtime.surroundings import without_keys

LOG_BYTES = 64 * 1024 * 1024
ADDRESS_SPACE_SPARE_MB = 8192  # mapped but never touched: allocators and thread stacks reserve far more than they use
_POLL_S = 0.02
_MARK = "FAIRWAY_CHILD"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """time_s: real seconds from the moment it gets its work. memory_mb: resident, of it and all it started."""

    time_s: float = 3600.0
    memory_mb: int = 8192
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)


def limits_of(settings: Settings) -> Limits:
    """What fairway.toml allows."""
    return Limits(time_s=settings.limits.train.total_seconds(), memory_mb=settings.limits.memory_mb)


class Child:
    """A child that has started and imports what it will need; `run` gives it its one piece of work.

    Started early, it warms up while the parent still reads data. Use as a context manager: on leaving, the process and
    everything it started is killed.
    """

    def __init__(
        self, *, cwd: Path, log: Path, limits: Limits, warm: tuple[str, ...] = (), python: Path | None = None
    ) -> None:
        """log: where its output goes, at most 64 MiB. warm: modules to import before the work arrives. python: of
        another environment that has fairway; by default this one."""
        self._limits, self._log = limits, log
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-child-"))
        self._mark = uuid.uuid4().hex
        threads = str(limits.threads)
        environment = without_keys() | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "passive",  # spinning threads beside other work turn 1 s of training into 20 s
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "NUMEXPR_NUM_THREADS": threads,
            "POLARS_MAX_THREADS": threads,
            _MARK: self._mark,
        }
        # -P: without it the current folder would come first, and a project's `types.py` would end Python's own start.
        command = [str(python or sys.executable), "-P", "-m", "fairway.training.child_main", str(self._folder), *warm]
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._drain = threading.Thread(target=_drain, args=(self._process.stdout, log), daemon=True)
        self._drain.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, target: str, payload: Mapping[str, Any], *, watch: Callable[[], None] | None = None) -> Any:
        """Call `module:function` with the payload (JSON) in the child; its returned JSON value.

        watch: called about 50 times a second while it works.
        Raises: ModelCodeError when it raised, exited, was killed, took too long or too much memory. Once only.
        """
        work = {"target": target, "payload": payload, "address_space": self._address_space()}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died before: what it left behind says how
            self._process.stdin.write(json.dumps(work).encode() + b"\n")
            self._process.stdin.close()
        deadline = clock.elapsed() + self._limits.time_s
        stopped = None
        while self._process.poll() is None:
            if (self._folder / "result.json").exists():
                break  # done is what is recorded, whatever threads it has left
            if clock.elapsed() > deadline:
                stopped = f"the project's code was stopped after {_seconds(self._limits.time_s)}, the time limit"
                break
            used = resident_mb(self._process.pid)
            if used > self._limits.memory_mb:
                stopped = (
                    f"the project's code ran out of memory: {used:,} MB where {self._limits.memory_mb:,} MB are allowed"
                )
                break
            if watch is not None:
                watch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_S)
        recorded = self._recorded()
        code = self._process.poll()
        self.close()
        if recorded is not None and stopped is None:
            if recorded["ok"]:
                return recorded["value"]
            raise ModelCodeError(recorded["message"], trace=recorded["trace"])
        raise ModelCodeError(stopped or _ended(code), trace=self._tail())

    def close(self) -> None:
        """Kill what is left of it: its process group, and what left the group but carries its mark."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pid in self._strays():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._drain.join(timeout=5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _address_space(self) -> int:
        return (self._limits.memory_mb + ADDRESS_SPACE_SPARE_MB) * 1024 * 1024

    def _recorded(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder / "result.json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    def _strays(self) -> list[int]:
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def _tail(self) -> str:
        self._drain.join(timeout=5)
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 8192))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def run_child(
    target: str,
    payload: Mapping[str, Any],
    limits: Limits | timedelta | None = None,
    *,
    cwd: Path | None = None,
    log: Path | None = None,
) -> Any:
    """Call `module:function` with a JSON payload in a new process; its returned JSON value.

    limits: or only the time. cwd: the project's folder. log: a file for what it prints (default: dropped).
    Raises: ModelCodeError, with the place in the project's code where there is one, and the trace.
    """
    if isinstance(limits, timedelta):
        limits = Limits(time_s=limits.total_seconds())
    with tempfile.TemporaryDirectory(prefix="fairway-log-") as folder:
        where = log or Path(folder) / "log.txt"
        with Child(cwd=cwd or Path.cwd(), log=where, limits=limits or Limits()) as child:
            return child.run(target, payload)


def _drain(stream: IO[bytes], log: Path) -> None:
    """Read everything, so that the child never blocks on a full pipe; keep the first 64 MiB."""
    kept = 0
    with log.open("ab") as file:
        while piece := stream.read1(1 << 16):  # type: ignore[attr-defined]
            room = LOG_BYTES - kept
            if room > 0:
                file.write(piece[:room])
                if len(piece) >= room:
                    file.write(b"\n... the log is full (64 MiB); the rest was dropped\n")
                file.flush()
            kept += len(piece)
    stream.close()


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            extra = "; the machine may be out of memory" if -code == signal.SIGKILL else ""
            return f"the project's code was killed by signal {-code} ({name}){extra}"
        return f"the project's code was killed by signal {-code}"
    return f"the project's code ended its process (exit code {code}) before it had a result"


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0  # it ended, or this system has no /proc: then only the address space is limited


def resident_mb(pid: int) -> int:
    """Resident memory of a process and all its descendants; 0 on a system without /proc."""
    pages = sum(_resident_pages(member) for member in (pid, *descendants(pid)))
    return pages * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


def descendants(pid: int) -> Iterator[int]:
    """The processes that it started, and those that they started, as long as their parents live."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


def _seconds(length: float) -> str:
    return f"{length:g} s" if length < 120 else f"{length / 60:g} min"
