"""Jobs and schedules as lines for a person, and `fairway answer job-12 cancel`."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fairway.cli.terminal import emit, table
from fairway.errors import UsageError
from fairway.web.words import length, local, plain

if TYPE_CHECKING:
    from fairway.store.workspace import Workspace

Json = dict[str, Any]

_LONGEST = 90  # characters of what a list says of a job; all of it is on the job's own page


def job(found: Json) -> list[str]:
    """One job: how it stands, what was done of it, and how to end it."""
    lines = [f"{found['job']}   {found['kind']} of {found['key']}   {_standing(found)}"]
    rows = [["queued", local(found["queued_at"]) + (f" by schedule {found['schedule']}" if found["schedule"] else "")]]
    if found["ended_at"]:
        rows.append(["ended", local(found["ended_at"])])
    if found["attempts"]:
        rows.append(["attempts", f"{found['attempts']} of at most {found['max_attempts'] or 'unknown'}"])
    if found["payload"]:
        rows.append(["asked", plain(found["payload"])])
    if found["limits"]:
        rows.append(["limits", _limits(found["limits"])])
    for place, step in enumerate(found["steps"]):
        said = "" if step["result"] is None else f"   {plain(step['result'])}"
        rows.append(["steps" if place == 0 else "", f"{step['step']}   {local(step['ended_at'])}{said}"])
    for place, signal in enumerate(found["signals"]):
        said = "" if signal["payload"] is None else f"   {plain(signal['payload'])}"
        sent = f"{signal['signal']}   by {signal['sent_by']}, {local(signal['sent_at'])}{said}"
        rows.append(["signals" if place == 0 else "", sent])
    if found["result"]:
        empty: tuple[Any, ...] = (None, [], {}, found["error"])
        rows.append(["result", plain({name: value for name, value in found["result"].items() if value not in empty})])
    if found["error"]:
        rows.append(["error" if found["status"] in ("failed", "cancelled") else "last error", found["error"]])
    lines += table(rows, indent="  ")
    if found["ended_at"] is None and found["cancelled_by"] is None:
        lines.append(f'  Cancel: fairway answer {found["job"]} cancel --why "..."')
    return lines


def job_row(found: Json) -> list[str]:
    said = {
        "waiting": f"for {found['waits_for']}",
        "running": f"by {found['owner']}",
        "done": f"ended {local(found['ended_at'])}",
    }.get(found["status"], found["error"] or "-")
    if found["cancelled_by"] and found["status"] == "running":
        said = found["error"]
    if found["not_before"] and found["status"] == "queued":
        said = f"again from {local(found['not_before'])}: {said}"
    said = " ".join(said.split())
    return [
        found["job"], found["kind"], found["key"], found["status"], str(found["attempts"]), local(found["queued_at"]),
        said if len(said) <= _LONGEST else said[: _LONGEST - 4] + " ...",
    ]  # fmt: skip


def schedule_row(found: Json) -> list[str]:
    return [
        found["schedule"], found["kind"], length(timedelta(seconds=found["every_s"])), found["backfill"],
        local(found["last_tick"]), found["last_job"] or "-",
        "paused" if found["paused"] else local(found["next_tick"]),
    ]  # fmt: skip


LISTS: dict[str, tuple[list[str], Callable[[Json], list[str]]]] = {
    "jobs": (["JOB", "KIND", "OF", "STATUS", "TRIES", "QUEUED", "SAYS"], job_row),
    "schedules": (["SCHEDULE", "KIND", "EVERY", "BACKFILL", "LAST", "JOB", "NEXT"], schedule_row),
}


def failed_lines(found: Sequence[Json]) -> list[str]:
    """For `status`: what failed in the last week."""
    rows = [[j["job"], f"{j['kind']} of {j['key']}", job_row(j)[-1], f"fairway show {j['job']}"] for j in found]
    return ["", "FAILED JOBS (7 d)", *table(rows, indent="  ")] if rows else []


def answer(workspace: "Workspace", job: str, choice: str, *, why: str | None, json: bool, dry_run: bool) -> None:
    """`fairway answer job-12 cancel`: the one thing that a person may say to a job that is no question."""
    from fairway.cli.things import allowed
    from fairway.registry import show as read
    from fairway.web import actions

    if choice != "cancel":
        raise UsageError(f"{job} can't be answered {choice!r}; choices: cancel", field="choice")
    by = allowed(workspace, "scientist")
    found = read.job(workspace.store, job)
    what = f"{found['kind']} of {found['key']}"
    if dry_run:
        emit(
            {"job": job, "answer": choice, "status": found["status"], "dry_run": True},
            json=json,
            lines=lambda: [f"{job} ({what}, {found['status']}) would be cancelled by {by.name}"],
        )
        return
    ended = actions.cancel(workspace, job, by=by, why=why)
    emit(ended, json=json, lines=lambda: [f"{job} is cancelled: {what}. What it had written before stays."])


def _standing(found: Json) -> str:
    if found["status"] == "waiting":
        return f"waits for {found['waits_for']}"
    if found["cancelled_by"] and found["status"] == "running":
        return f"is being cancelled by {found['cancelled_by']}"
    if found["status"] == "queued" and found["not_before"]:
        return f"queued again from {local(found['not_before'])}"
    return str(found["status"])


def _limits(limits: Json) -> str:
    said = []
    if "timeout_s" in limits:
        said.append(length(timedelta(seconds=limits["timeout_s"])))
    if "memory_mb" in limits:
        said.append(f"{limits['memory_mb']:,.0f} MB")
    return ", ".join(said)
