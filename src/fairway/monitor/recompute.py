"""A process that recomputes predictions with packaged versions, bounded in time, and gone with this one."""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fairway import clock
from fairway.errors import ModelCodeError
from fairway.runtime.surroundings import without_keys
from fairway.training.child import resident_mb

ANSWER_S = 120.0
_POLL_S = 0.2


class Recompute:
    """Starts at the first question and is started again after one that it did not survive. For one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any], *, memory_mb: int, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The answer of `recompute_main.recompute`. Raises: ModelCodeError when the project's code failed or hung."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        until_s = clock.elapsed() + timeout_s
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except BrokenPipeError as exc:
            self.close()
            raise ModelCodeError("the process that recomputes ended") from exc
        while not select.select([process.stdout], [], [], _POLL_S)[0]:
            why = None
            if clock.elapsed() > until_s:
                why = f"took longer than {timeout_s:g} s"
            elif (used := resident_mb(process.pid)) > memory_mb:
                why = f"took {used:,} MB where {memory_mb:,} MB are allowed"
            if why is not None:
                self.close()
                raise ModelCodeError(f"the project's code {why}")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            how = f"was killed by signal {-code}" if code < 0 else f"ended its process (exit code {code})"
            raise ModelCodeError(f"the project's code {how}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelCodeError(answer["error"])
        return answer

    def close(self) -> None:
        """End it, with everything it started. Safe to repeat."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        environment = without_keys() | {
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "-P", "-m", "fairway.monitor.recompute_main"]
        self._process = subprocess.Popen(
            command, cwd=Path(tempfile.gettempdir()), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        return self._process


_kept = Recompute()
atexit.register(_kept.close)


@contextlib.contextmanager
def recomputing() -> Any:
    """The process of this one. On a real clock it ends after use: the next window is long off."""
    try:
        yield _kept
    finally:
        if not clock.is_virtual():
            _kept.close()


def end() -> None:
    """End the process that a virtual clock kept."""
    _kept.close()
