"""What waits for a person is a row: it outlives kill -9 of everything, days, and edits of the job's code."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from running import Running, alive, running, wait_until
from small_model import SETTINGS, make_package, register

from fairway.fleet import reviews
from fairway.registry import show
from fairway.store import audit, jobs, signals
from fairway.store.base import Store
from fairway.store.gateways import advance_clock, is_served
from fairway.store.workspace import Workspace

PROGRAM = """
import json, os, sys, time
from pathlib import Path
from fairway.process import job, worker
from fairway.process.holder import run_in_child
from fairway.store import jobs
from fairway.store.steps import Job, attempt

def run(workspace, claim):
    store, work = workspace.store, Job(workspace.store, claim)
    def step(name):
        with (workspace.root / "done").open("a") as file:
            file.write(name + "\\n")
        return name
    def do():
        BODY
        with store.write() as tx:
            return jobs.finish(store, tx, claim, result=result)
    return attempt(store, claim, do)

def make(workspace):
    def hold(_, claim):
        run_in_child(workspace, claim, stop=made.stopping.is_set, command=(sys.executable, __file__, "job"))
    made = worker.Worker(workspace, observers=[], tick=lambda *_: False, run_job=hold)
    return made

what, *arguments = sys.argv[1:]
sys.exit(job.main(arguments, run=run) if what == "job" else worker.main(arguments, make=make))
"""
BEFORE = """
        made = work.step("train", {"rows": 100}, lambda: {"version": 3, "by": step("train, old code")})
        answer = work.wait("answer")
        result = {"old": True}
"""
AFTER = """
        made = work.step("train", {"rows": 100}, lambda: {"version": 4, "by": step("train, new code")})
        work.step("measure", made, lambda: step("measure, new code"))  # a step that did not exist
        answer = work.wait("answer")
        result = {"answer": answer, "made": made}
"""


def test_the_code_is_edited_while_a_job_waits_and_everything_is_killed(tmp_path: Path) -> None:
    program, workspace = tmp_path / "program.py", Workspace.create(tmp_path)

    def start(body: str) -> "subprocess.Popen[bytes]":
        program.write_text(PROGRAM.replace("BODY", body.strip()))
        return subprocess.Popen(
            [sys.executable, str(program), "worker", "--root", str(tmp_path), "--parent", str(os.getpid())]
        )

    with workspace.store as store:
        with store.write() as tx:
            assert jobs.submit(store, tx, kind="train", key="k", payload={}) == "job-1"
        worker = start(BEFORE)
        assert wait_until(lambda: status(store) == "waiting", 30)
        worker.kill()  # nothing is left of the job but rows
        worker.wait()
        worker = start(AFTER)
        with store.write() as tx:
            assert signals.send(store, tx, "job-1", "answer", "deploy", by="ana")
        assert wait_until(lambda: status(store) == "done", 30)
        worker.terminate()
        assert worker.wait(30) == 0
        with store.read() as tx:
            found = jobs.find(store, tx, "job-1")
        assert found.result == {"answer": "deploy", "made": {"version": 3, "by": "train, old code"}}
        assert (tmp_path / "done").read_text().splitlines() == ["train, old code", "measure, new code"]


def status(store: Store) -> str:
    with store.read() as tx:
        return str(jobs.find(store, tx, "job-1").status)


START = datetime(2014, 5, 1, 6, tzinfo=UTC)


def test_an_approval_waits_for_days_through_kills_and_then_goes_on(tmp_path: Path) -> None:
    """The deployment that the loop started, its rollout and its review, at risk high; all processes are killed."""
    workspace = Workspace.create(tmp_path / "ws")
    settings = SETTINGS.replace("[data]", 'risk = "high"\nowner = "risk"\n[data]')
    register(workspace, make_package(tmp_path / "v1", settings=settings), 1)
    store = workspace.store
    with store.write() as tx:
        payload = {"model": "small", "version": 1, "cause": "schedule"}
        jobs.submit(store, tx, kind="deploy", key="small", payload=payload)
    with running(workspace, virtual_clock=START) as up:
        up.ready()
        advance_clock(workspace, START + timedelta(hours=1))
        (job,) = [j for j in show.jobs(store) if j["kind"] == "deploy"]
        assert (job["status"], job["waits_for"]) == ("waiting", "answer to review-1"), job["error"]
        assert show.rollout(store, "rollout-1")["phase"] == "waiting"
        kill_all(up)
    after = START + timedelta(days=5)
    with running(workspace, virtual_clock=after) as up:
        up.ready()
        advance_clock(workspace, after + timedelta(hours=1))
        assert up.predict([{"who": "a", "size": 0.5, "color": "red"}]).status_code == 404
        reviews.answer(store, "review-1", "approve", actor="kim", now=after, why="MC-212", roles={"approver"})
        advance_clock(workspace, after + timedelta(hours=2))
        answer = up.predict([{"who": "a", "size": 0.5, "color": "red"}])
        assert (answer.status_code, answer.json()["outputs"][0]["version"]) == (200, 1)
    found = show.job(store, job["job"])
    assert (found["status"], found["result"]["answer"]) == ("done", "approve")
    assert [step["step"] for step in found["steps"]] == ["rollout"]
    assert sum(entry.action == "review.answer" for entry in audit.entries(store)) == 1
    store.close()


def kill_all(up: Running) -> None:
    """kill -9 of the supervisor; its children end with it."""
    tree = [up.process.pid, *(int(pid) for pid in children(up.process.pid))]
    up.client.close()
    up.process.kill()
    up.process.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in tree), 10)
    assert is_served(up.workspace) is None


def children(pid: int) -> list[str]:
    return [p for task in Path(f"/proc/{pid}/task").glob("*/children") for p in task.read_text().split()]
