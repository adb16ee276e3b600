"""What a person may do to a rollout or a review, by the command line or the pages: the same checks, the same effect.

A change of traffic is one row in the store; it is done when every live gateway has activated it, and these functions
wait for that.
"""

import time
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.errors import NotAllowed, RequestError, RolloutRefused, Unfinished
from fairway.registry import show as read
from fairway.rollout import controller
from fairway.store import schema
from fairway.store.tokens import Identity
from fairway.store.workspace import Workspace
from fairway.web.security import answer_role

Json = dict[str, Any]

WAIT_S = 30.0
LIVE_S = 3.0  # a gateway without a heartbeat for this long is not waited for
_LOOK_S = 0.02


def wait_active(workspace: Workspace, endpoint: str, epoch: int, *, timeout_s: float = WAIT_S) -> list[str]:
    """Wait until every gateway with a live heartbeat has activated `epoch`; the names of those that did.

    None at all (nothing serves) is done at once. Raises: Unfinished, naming those that have not.
    """
    deadline = clock.elapsed() + timeout_s
    while True:
        live = _live_gateways(workspace)
        behind = [name for name, active in live if active.get(endpoint, -1) < epoch]
        if not behind:
            return [name for name, _ in live]
        if clock.elapsed() >= deadline:
            raise Unfinished(
                f"{endpoint} is changed in the store (epoch {epoch}), but after {timeout_s:g} s these have not activated "
                f"it: {', '.join(behind)}. They go on with what they had; see: fairway status"
            )
        time.sleep(_LOOK_S)


def rollback(workspace: Workspace, model: str, *, by: Identity, why: str | None) -> Json:
    """The version before, at once, on every live gateway. Raises: RolloutRefused, ModelNotFound, Unfinished."""
    started = clock.elapsed()
    moved = controller.rollback(workspace.store, model, why=why or None, actor=by.name, now=clock.now())
    gateways = wait_active(workspace, moved.endpoint, moved.epoch)
    return {
        "model": model, "endpoint": moved.endpoint, "before": moved.before, "to": moved.to, "rollout": moved.rollout,
        "epoch": moved.epoch, "seconds": clock.elapsed() - started, "gateways": gateways,
    }  # fmt: skip


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
    from fairway.fleet import reviews

    found = read.review(workspace.store, review)
    if found["answer"]:
        raise RolloutRefused(f"{review} was answered already: {found['answer']}, by {found['answered_by']}")
    if choice not in found["choices"]:
        known = ", ".join(found["choices"])
        raise RequestError(f"{review} can't be answered {choice!r}; choices: {known}", code="unknown_choice", status=422,
                           field="answer")  # fmt: skip
    role = answer_role(found["kind"])
    if not by.may(role):
        raise NotAllowed(f"refused: {review} needs the role {role}, and {by.name} has {', '.join(sorted(by.roles))}")
    reviews.answer(workspace.store, review, choice, actor=by.name, now=clock.now(), why=why or None)
    return read.review(workspace.store, review)


def _open(workspace: Workspace, rollout: str) -> str:
    found = read.rollout(workspace.store, rollout)
    if found["ended_at"]:
        raise RolloutRefused(f"{rollout} has ended: {found['phase'].replace('_', ' ')}")
    return str(found["model"])


def _live_gateways(workspace: Workspace) -> list[tuple[str, dict[str, int]]]:
    table, store = schema.gateway, workspace.store
    with store.read() as tx:
        now = store.database_now(tx)
        rows = tx.execute(sa.select(table).where(table.c.workspace == store.workspace)).all()
    return [(row.gateway, row.active) for row in rows if (now - row.heartbeat_at).total_seconds() < LIVE_S]
