"""What a person may do to a rollout or a review, by the command line or the pages: the same checks, the same effect.

A change of traffic is one row in the store; it is done when every live gateway has activated it, and these functions
wait for that.
"""

import time
from typing import Any

from fairway import clock
from fairway.errors import NotAllowed, RolloutRefused, Unfinished, UsageError
from fairway.fleet import reviews
from fairway.registry import show as read
from fairway.rollout import controller
from fairway.store import jobs
from fairway.store.gateways import live_gateways, wait_active
from fairway.store.tokens import Identity
from fairway.store.workspace import Workspace
from fairway.web.security import answer_role

Json = dict[str, Any]

WAIT_S = 30.0


def rollback(workspace: Workspace, model: str, *, by: Identity, why: str | None) -> Json:
    """The version before, at once, on every live gateway. Raises: RolloutRefused, ModelNotFound, Unfinished."""
    started = clock.elapsed()
    moved = controller.rollback(workspace.store, model, why=why or None, actor=by.name, now=clock.now())
    follow(workspace, moved.endpoint, moved.epoch)
    return {
        "model": model, "endpoint": moved.endpoint, "before": moved.before, "to": moved.to, "rollout": moved.rollout,
        "epoch": moved.epoch, "seconds": clock.elapsed() - started, "gateways": len(live_gateways(workspace.store)),
    }  # fmt: skip


def follow(workspace: Workspace, endpoint: str, epoch: int) -> None:
    """Wait until every live gateway has activated `epoch`. Raises: Unfinished, naming those that have not."""
    behind = wait_active(workspace, endpoint, epoch, timeout_s=WAIT_S)
    if behind:
        raise Unfinished(
            f"{endpoint} is changed in the store (epoch {epoch}), but after {WAIT_S:g} s these have not activated it: "
            f"{', '.join(behind)}. They go on with what they had; see: fairway status"
        )


def pause(workspace: Workspace, rollout: str, *, by: Identity, why: str | None) -> Json:
    """Raises: ThingNotFound, RolloutRefused."""
    model = _open(workspace, rollout)
    controller.pause(workspace.store, model, actor=by.name, now=clock.now(), why=why or None)
    return {"rollout": rollout, "model": model, "phase": "paused"}


def resume(workspace: Workspace, rollout: str, *, by: Identity, why: str | None) -> Json:
    """Raises: ThingNotFound, RolloutRefused."""
    model = _open(workspace, rollout)
    controller.resume(workspace.store, model, actor=by.name, now=clock.now(), why=why or None)
    return {"rollout": rollout, "model": model, "phase": "running"}


def answer(workspace: Workspace, review: str, choice: str, *, by: Identity, why: str | None) -> Json:
    """Record an answer, and do what it says. Raises: ThingNotFound, NotAllowed, Refused, RequestError."""
    found = read.review(workspace.store, review)
    if found["answer"]:
        raise RolloutRefused(f"{review} was answered already: {found['answer']}, by {found['answered_by']}")
    if choice not in found["choices"]:
        known = ", ".join(found["choices"])
        raise UsageError(f"{review} can't be answered {choice!r}; choices: {known}", field="answer")
    role = answer_role(found["kind"])
    if not by.may(role):
        raise NotAllowed(f"refused: {review} needs the role {role}, and {by.name} has {', '.join(sorted(by.roles))}")
    reviews.answer(workspace.store, review, choice, actor=by.name, now=clock.now(), why=why or None, roles=by.roles)
    endpoint = read.endpoint(workspace.store, found["model"])
    if endpoint is not None:  # an answer may have moved traffic
        follow(workspace, found["model"], endpoint["epoch"])
    return read.review(workspace.store, review)


def cancel(workspace: Workspace, job: str, *, by: Identity, why: str | None) -> Json:
    """End a job, and wait until its process has gone. Raises: ThingNotFound, Refused, Unfinished."""
    store, until_s = workspace.store, clock.elapsed() + WAIT_S
    with store.write() as tx:
        jobs.cancel(store, tx, job, actor=by.name, why=why or None)
    while (found := read.job(store, job))["status"] == "running":
        if clock.elapsed() > until_s:
            raise Unfinished(
                f"{job} was told to stop, but its worker has not ended it within {WAIT_S:g} s; when that worker is "
                f"gone, the next one does: fairway show {job}"
            )
        time.sleep(0.1)
    return found


def _open(workspace: Workspace, rollout: str) -> str:
    found = read.rollout(workspace.store, rollout)
    if found["ended_at"]:
        raise RolloutRefused(f"{rollout} has ended: {found['phase'].replace('_', ' ')}")
    return str(found["model"])
