"""A claimed job's process: its limits, its end by a cancellation or a stopping worker, and what becomes of the job."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import alive, wait_until

from fairway.process.holder import run_in_child
from fairway.store import jobs
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace

JOB = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from fairway.process import job
from fairway.store import jobs

def run(workspace, claim):
    def end(**values):
        with workspace.store.write() as tx:
            return jobs.finish(workspace.store, tx, claim, **values)
    folder = workspace.root
    BODY

sys.exit(job.main(run=run))
"""
# Leaves the group and its session: only its parent is known to be of the job.
STRAY = (
    "stray = subprocess.Popen(['sleep', '60'], start_new_session=True); "
    "(folder / 'pids').write_text(json.dumps([os.getpid(), stray.pid]))"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace.create(tmp_path)
    with workspace.store:
        yield workspace


def claimed(workspace: Workspace, **limits: float) -> Claim:
    store = workspace.store
    with store.write() as tx:
        jobs.submit(store, tx, kind="test", key="k", payload={"n": 1}, limits=limits)
    claim = jobs.claim(store, owner="test")
    assert claim is not None
    return claim


def hold(workspace: Workspace, claim: Claim, body: str, **more: Any) -> Any:
    """Run the body as a job; its row afterwards."""
    script = workspace.root / "job.py"
    script.write_text(JOB.replace("BODY", body))
    run_in_child(workspace, claim, command=(sys.executable, str(script)), **more)
    with workspace.store.read() as tx:
        return jobs.find(workspace.store, tx, claim.job)


def gone(workspace: Workspace) -> bool:
    pids = json.loads((workspace.root / "pids").read_text())
    return wait_until(lambda: not any(alive(pid) for pid in pids), 5)


def test_a_job_ends_itself(workspace: Workspace) -> None:
    found = hold(workspace, claimed(workspace), "end(result={'n': claim.payload['n'] + 1})")
    assert (found.status, found.result) == ("done", {"n": 2})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by signal 9 (SIGKILL)"),
        ("os._exit(3)", "its process ended with exit code 3 before the job had ended; see the worker's log"),
        ("return", "its process ended with exit code 0 before the job had ended; see the worker's log"),
    ],
)
def test_a_process_that_dies_leaves_the_job_to_another_attempt(workspace: Workspace, body: str, error: str) -> None:
    found = hold(workspace, claimed(workspace), body)
    assert (found.status, found.error, found.attempts) == ("queued", error, 1)
    assert found.not_before is not None


def test_a_time_limit_ends_it_with_all_that_it_started(workspace: Workspace) -> None:
    found = hold(workspace, claimed(workspace, timeout_s=1.5), f"{STRAY}; time.sleep(60)")
    assert (found.status, found.error) == ("failed", "stopped after 1.5 s, its time limit")
    assert gone(workspace)


def test_a_memory_limit_counts_what_it_started(workspace: Workspace) -> None:
    child = "subprocess.run([sys.executable, '-c', 'import time; x = b\"x\" * 300_000_000; time.sleep(60)'])"
    found = hold(workspace, claimed(workspace, memory_mb=250), child)
    assert (found.status, found.error) == ("failed", "stopped at more than 250 MB, its memory limit")


def test_a_cancelled_job_puts_away_what_it_began_and_its_processes_end(workspace: Workspace) -> None:
    claim, store = claimed(workspace), workspace.store
    body = f"""{STRAY}
    try:
        time.sleep(60)
    finally:
        (folder / 'put-away').touch()"""

    def cancel() -> None:
        wait_until((workspace.root / "pids").exists, 20)
        with store.write() as tx:
            assert jobs.cancel(store, tx, claim.job, actor="ana", why="wrong data") == "running"

    canceller = threading.Thread(target=cancel)
    canceller.start()
    found = hold(workspace, claim, body)
    canceller.join()
    assert (found.status, found.error) == ("cancelled", "cancelled by ana: wrong data")
    assert (workspace.root / "put-away").exists() and gone(workspace)


def test_a_stopping_worker_gives_the_job_back(workspace: Workspace) -> None:
    claim = claimed(workspace)
    found = hold(workspace, claim, f"{STRAY}; time.sleep(60)", stop=(workspace.root / "pids").exists)
    assert (found.status, found.attempts, found.error) == ("queued", 0, None) and gone(workspace)
    again = jobs.claim(workspace.store, owner="next")
    assert again is not None and again.fence == 2


def test_a_job_in_other_hands_is_ended_here_and_writes_nothing(workspace: Workspace) -> None:
    claim, store = claimed(workspace), workspace.store

    def steal() -> None:
        wait_until((workspace.root / "pids").exists, 20)
        with store.write() as tx:
            assert jobs.release(store, tx, claim)
        assert jobs.claim(store, owner="thief") is not None

    thief = threading.Thread(target=steal)
    thief.start()
    found = hold(workspace, claim, f"{STRAY}; time.sleep(60)")
    thief.join()
    assert (found.status, found.owner, found.fence) == ("running", "thief", 2) and gone(workspace)


def test_a_killed_worker_takes_its_job_with_it(workspace: Workspace) -> None:
    script = workspace.root / "job.py"
    script.write_text(JOB.replace("BODY", "(folder / 'pids').write_text(str(os.getpid())); time.sleep(60)"))
    worker = f"""
import sys
from pathlib import Path
from fairway.process.holder import run_in_child
from fairway.store import jobs
from fairway.store.workspace import Workspace
workspace = Workspace(Path({str(workspace.root)!r}))
run_in_child(workspace, jobs.claim(workspace.store, owner="w"), command=(sys.executable, {str(script)!r}))
"""
    with workspace.store.write() as tx:
        jobs.submit(workspace.store, tx, kind="test", key="k", payload={})
    process = subprocess.Popen([sys.executable, "-c", worker])
    assert wait_until(lambda: (workspace.root / "pids").exists() and bool((workspace.root / "pids").read_text()), 20)
    process.kill()
    process.wait()
    assert wait_until(lambda: not alive(int((workspace.root / "pids").read_text())), 5)
    assert jobs.claim(workspace.store, owner="other") is None  # not before its lease ends
