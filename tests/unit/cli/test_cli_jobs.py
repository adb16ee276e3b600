"""What `show`, `answer` and `admin schedule` say of jobs and schedules."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway import clock
from fairway.cli.main import call
from fairway.fleet import schedules as calendar
from fairway.store import audit, jobs, signals
from fairway.store.base import Store
from fairway.store.steps import Job
from fairway.store.workspace import Workspace

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """One job that waits, one that failed and will be tried again, one that is queued."""
    workspace = Workspace.create(tmp_path)
    store = workspace.store
    with store.write() as tx:
        for kind in ("deploy", "train", "tidy_jobs"):
            limits = {"timeout_s": 3600.0, "memory_mb": 2048.0}
            jobs.submit(store, tx, kind=kind, key="churn", payload={"model": "churn"}, limits=limits)
    parked = take(store, "deploy")
    Job(store, parked).step("rollout", 1, lambda: {"rollout": "rollout-1"})
    with pytest.raises(signals.Parked):
        Job(store, parked).wait("answer to review-1")
    failed = take(store, "train")
    with store.write() as tx:
        jobs.fail(store, tx, failed, error="the store can't be reached", again=True)
    calendar.tick(workspace, clock.now())
    yield workspace
    store.close()


def take(store: Store, kind: str) -> jobs.Claim:
    claim = jobs.claim(store, owner="w", kinds=(kind,))
    assert claim is not None
    return claim


@pytest.fixture
def fairway(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(workspace.root)

    def run(*arguments: str) -> tuple[int, str]:
        code = call(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_the_list_says_what_each_waits_for(fairway: Run) -> None:
    code, out = fairway("show", "jobs")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and "waiting" in lines["job-1"] and lines["job-1"].endswith("for answer to review-1")
    assert "again from" in lines["job-2"] and lines["job-2"].endswith("the store can't be reached")
    assert "queued" in lines["job-3"]


def test_one_job_says_how_it_stands(fairway: Run) -> None:
    _, out = fairway("show", "job-1")
    assert out.splitlines()[0] == "job-1   deploy of churn   waits for answer to review-1"
    assert "60 min, 2,048 MB" in out and "rollout rollout-1" in out and "fairway answer job-1 cancel --why" in out
    _, out = fairway("show", "job-2", "--json")
    found = json.loads(out)
    assert (found["status"], found["attempts"], found["limits"]["memory_mb"]) == ("queued", 1, 2048)
    assert fairway("show", "job-9") == (2, "no job-9; list them with: fairway show jobs\n")


def test_a_job_is_cancelled_with_its_reason(fairway: Run, workspace: Workspace) -> None:
    code, out = fairway("answer", "job-1", "cancel", "--dry-run")
    assert code == 0 and out.startswith("job-1 (deploy of churn, waiting) would be cancelled by ")
    code, out = fairway("answer", "job-1", "cancel", "--why", "wrong month")
    assert (code, out) == (0, "job-1 is cancelled: deploy of churn. What it had written before stays.\n")
    assert "cancelled by" in fairway("show", "job-1")[1] and "wrong month" in fairway("show", "job-1")[1]
    assert [e.action for e in audit.entries(workspace.store, subject="job-1")] == ["job.cancel"]
    assert fairway("answer", "job-1", "cancel")[0] == 1
    assert fairway("answer", "job-2", "retry") == (2, "job-2 can't be answered 'retry'; choices: cancel\n")


def test_schedules_are_listed_and_paused(fairway: Run, workspace: Workspace) -> None:
    code, out = fairway("show", "schedules")
    assert code == 0 and {line.split()[0] for line in out.splitlines()[1:]} == {s.name for s in calendar.STANDING}
    assert fairway("admin", "schedule", "tidy-jobs", "--pause", "--dry-run") == (0, "tidy-jobs would be paused\n")
    assert fairway("admin", "schedule", "tidy-jobs", "--pause") == (0, "tidy-jobs is paused\n")
    assert fairway("show", "schedules")[1].splitlines()[-1].endswith("paused")
    assert [e.action for e in audit.entries(workspace.store, subject="tidy-jobs")] == ["schedule.pause"]
    assert fairway("admin", "schedule", "tidy-jobs", "--resume") == (0, "tidy-jobs is not paused\n")
    assert fairway("admin", "schedule", "tidy-jobs")[0] == 2 and fairway("admin", "schedule", "x", "--pause")[0] == 2


def test_status_lists_what_failed(fairway: Run, workspace: Workspace) -> None:
    store = workspace.store
    claim = take(store, "tidy_jobs")
    with store.write() as tx:
        jobs.fail(store, tx, claim, error="no space\nleft", again=False)
    _, out = fairway("status")
    assert "FAILED JOBS (7 d)\n  job-3  tidy_jobs of churn  no space left  fairway show job-3" in out
