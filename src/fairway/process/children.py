"""Child processes of the supervisor: started, watched, started again when they die, and ended with it."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fairway import clock
from fairway.runtime.surroundings import without_keys

MAX_LOG = 10 * 1024 * 1024  # bytes of output that one life of a child may leave on disk; the rest is read and dropped
_FIRST_S, _LONGEST_S, _STEADY_S = 0.1, 10.0, 10.0

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS")
SINGLE_THREAD = dict.fromkeys(_THREADS, "1")


class Child:
    """One process that should live until `stop`. Belongs to one event loop.

    Its output goes to a file. In a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone, which
    then ends its children in order.

    environment: variables beside this process's. keys: False for what runs the project's code; see `without_keys`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        output: Path,
        fds: Sequence[int] = (),
        environment: dict[str, str] | None = None,
        keys: bool = True,
        on_end: Callable[[int], None] = lambda code: None,
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", module, *arguments, "--parent", str(os.getpid())]
        self._output, self._fds, self._on_end = output, tuple(fds), on_end
        self._environment = {**(os.environ if keys else without_keys()), **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.deaths = 0  # in a row, without a steady life between
        self.last_exit: int | None = None
        self._task = asyncio.get_running_loop().create_task(self._keep())

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            started_s = clock.elapsed()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT, pass_fds=self._fds, env=self._environment, start_new_session=True,
                )  # fmt: skip
                if self._stopping.is_set():  # told to stop while it was being started again
                    with contextlib.suppress(ProcessLookupError):
                        self._process.kill()
                await asyncio.gather(self._drain(self._process), self._process.wait())
            except OSError as error:
                log.error("%s can't be started: %s", self.name, error)
            else:
                self.last_exit = self._process.returncode
                if self.last_exit is not None:
                    self._on_end(self.last_exit)
            if self._stopping.is_set():
                return
            self.deaths = 1 if clock.elapsed() - started_s > _STEADY_S else self.deaths + 1
            pause_s = min(_FIRST_S * 2 ** (self.deaths - 1), _LONGEST_S)
            log.warning("%s ended (exit code %s); it is started again", self.name, self.last_exit)
            with contextlib.suppress(TimeoutError):  # the pause ends early when it is stopped
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self._output.open("ab") as file:
            size = file.tell()
            if size > MAX_LOG:
                file.truncate(0)
                size = 0
            while piece := await process.stdout.read(65536):
                if size + len(piece) <= MAX_LOG:
                    with contextlib.suppress(OSError):  # a full disk must not end a child that serves
                        file.write(piece)
                        file.flush()
                size += len(piece)

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, then SIGKILL to it and its group after `grace_s`."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                log.warning("%s did not end within %g s and is killed", self.name, grace_s)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process is None:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(self._task, 5.0)
