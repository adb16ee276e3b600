"""Holds a claimed job while its process runs: renews the lease, keeps the limits, hears of a cancellation.

Whatever happens to the process, its end is written under the job's fence, and nothing that it started is left.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Literal

from fairway import clock
from fairway.errors import StoreUnavailable
from fairway.store import jobs
from fairway.store.base import Store
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace
from fairway.training.child import descendants, resident_mb

POLL_S = 0.1
LOOK_S = 1.0  # between two looks whether the job was cancelled
GRACE_S = 2.0  # from SIGTERM, at which a job puts away what it began, to SIGKILL
STOP_S = 1.0  # what a job gets to end by itself when the worker stops

End = Literal["itself", "lost", "cancel", "stop", "time", "memory"]
JOB = (sys.executable, "-m", "fairway.process.job")

log = logging.getLogger(__name__)


def run_in_child(
    workspace: Workspace,
    claim: Claim,
    *,
    stop: Callable[[], bool] = lambda: False,
    lease: timedelta = jobs.LEASE,
    command: Sequence[str] = JOB,
) -> None:
    """Run a job in a process of its own and wait for it.

    stop: True when this worker ends: then the job is interrupted and given back. command: what runs the job; it gets
    --root, --parent and --claim. A process that dies without ending its job leaves it to another attempt, with the
    reason; one that takes longer or more memory than the job's limits fails it.
    """
    arguments = ["--root", str(workspace.root), "--parent", str(os.getpid()), "--claim", json.dumps(asdict(claim))]
    threads = str(os.cpu_count() or 1)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",  # spinning threads beside the gateways' take their time away
        "OPENBLAS_NUM_THREADS": threads,
        "POLARS_MAX_THREADS": threads,
    }
    child = subprocess.Popen([*command, *arguments], env=environment, start_new_session=True)
    holder = _Holder(workspace, claim, child.pid, lease)
    try:
        end = holder.watch(child, stop)
    finally:
        _end(child, gently=child.poll() is None)
    holder.record(end, child.returncode, stop)


@contextmanager
def kept_alive(store: Store, claim: Claim, lease: timedelta = jobs.LEASE) -> Iterator[None]:
    """Renew the lease of a job that runs in this process, from a thread, while the block lasts."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease.total_seconds() / 3):
            with suppress(StoreUnavailable):  # its end is written when the store is back, under the fence
                jobs.renew(store, claim, lease=lease)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Holder:
    def __init__(self, workspace: Workspace, claim: Claim, pid: int, lease: timedelta) -> None:
        self._store, self._claim, self._pid, self._lease = workspace.store, claim, pid, lease
        self._renewed_s = self._looked_s = clock.elapsed()
        self._cut_off = False

    def watch(self, child: subprocess.Popen[bytes], stop: Callable[[], bool]) -> End:
        """Returns when the process has ended, or why it must."""
        limits = self._claim.limits
        began_s, stop_s = clock.elapsed(), None
        while child.poll() is None:
            now_s = clock.elapsed()
            if stop():
                stop_s = now_s if stop_s is None else stop_s
                if now_s - stop_s >= STOP_S:
                    return "stop"
            if now_s - began_s > limits.get("timeout_s", jobs.TIMEOUT_S):
                return "time"
            if "memory_mb" in limits and resident_mb(self._pid) > limits["memory_mb"]:
                return "memory"
            standing = self._standing(now_s)
            if standing != "held":
                return standing
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL_S)
        return "itself"

    def _standing(self, now_s: float) -> jobs.Standing:
        """What the store says of the job, asked about once a second; "held" while it can't be asked."""
        every_s = self._lease.total_seconds() / 6
        if now_s - self._looked_s < min(LOOK_S, every_s):
            return "held"
        self._looked_s = now_s
        try:
            if now_s - self._renewed_s < every_s:
                found = jobs.standing(self._store, self._claim)
            else:
                found = jobs.renew(self._store, self._claim, lease=self._lease)
                self._renewed_s = now_s
        except StoreUnavailable as error:
            # The process goes on: if its lease ends meanwhile and another takes the job, the fence keeps it from
            # writing; if none does, its work is not lost.
            if not self._cut_off:
                log.warning("%s: %s", self._claim.job, error)
            self._cut_off = True
            return "held"
        self._cut_off = False
        return found

    def record(self, end: End, code: int, stop: Callable[[], bool]) -> None:
        """Write how the attempt ended; no effect when the process has written it itself, or the lease was lost."""
        pause_s = 0.2
        while True:
            try:
                self._record(end, code)
                return
            except StoreUnavailable as error:
                if stop():
                    log.warning("%s is left to the end of its lease: %s", self._claim.job, error)
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 5.0)

    def _record(self, end: End, code: int) -> None:
        store, claim, limits = self._store, self._claim, self._claim.limits
        if end == "lost":
            log.warning("%s was taken by another worker, or ended; its process here is stopped", claim.job)
            return
        with store.write() as tx:
            if end == "cancel":
                jobs.stopped(store, tx, claim)
            elif end == "stop":
                jobs.release(store, tx, claim)
            elif end == "time":
                error = f"stopped after {limits.get('timeout_s', jobs.TIMEOUT_S):g} s, its time limit"
                jobs.fail(store, tx, claim, error=error, again=False)
            elif end == "memory":
                error = f"stopped at more than {limits['memory_mb']:g} MB, its memory limit"
                jobs.fail(store, tx, claim, error=error, again=False)
            elif jobs.fail(store, tx, claim, error=_died(code), again=True):
                log.error("%s, attempt %d: %s", claim.job, claim.attempts, _died(code))


def _died(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"its process was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"its process was killed by signal {-code}"
    return f"its process ended with exit code {code} before the job had ended; see the worker's log"


def _end(child: subprocess.Popen[bytes], *, gently: bool) -> None:
    """End the process, its group, and what left the group: first asked, then killed."""
    started = {(pid, _began(pid)) for pid in descendants(child.pid)}
    if gently:
        with suppress(ProcessLookupError):
            child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
        started |= {(pid, _began(pid)) for pid in descendants(child.pid)}
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pid, began in started:
        if began is not None and _began(pid) == began:  # not another one that has got its number meanwhile
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _began(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None when it has ended."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None
