"""The management API under /api/v1: reads are the read models, changes are the same functions as the command line's."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fairway import clock
from fairway.data import log
from fairway.errors import RequestError
from fairway.registry import show as read
from fairway.store.base import SHOWN_BYTES, jsonable
from fairway.store.tokens import Identity
from fairway.store.workspace import Workspace
from fairway.web import actions

Json = dict[str, Any]
Advance = Callable[[datetime], datetime]


class Body(BaseModel):
    """A JSON body: unknown keys are refused, like unknown settings."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AnswerBody(Body):
    answer: str = Field(min_length=1, max_length=64)
    why: str = Field(default="", max_length=4000)


class WhyBody(Body):
    why: str = Field(default="", max_length=4000)


class ClockBody(Body):
    to: str


def caller(request: Request) -> Identity:
    """Who was let in by the guard."""
    identity: Identity | None = request.state.identity
    if identity is None:
        raise RequestError("a token is needed: Authorization: Bearer fw_...", code="no_token", status=401)
    return identity


Caller = Annotated[Identity, Depends(caller)]
Model = Annotated[str | None, Query(max_length=64)]


def make_router(workspace: Workspace, *, advance: Advance | None) -> APIRouter:
    """All routes of the API over one workspace. advance: moves a virtual clock; None where the clock is real."""
    router = APIRouter(prefix="/api/v1")
    store = workspace.store

    @router.get("/status", summary="What needs a person, and one line per model")
    def status() -> Json:
        return {**read.status(store), "gateways": read.gateways(store)}

    @router.get("/models", summary="All models")
    def models() -> list[Json]:
        lines: list[Json] = read.status(store)["models"]
        return lines

    @router.get("/models/{name}", summary="One model with its versions, windows, alarms, reviews and rollouts")
    def model(name: str) -> Json:
        return read.model(store, name)

    @router.get("/models/{name}/versions/{version}", summary="One version with its metrics and checks")
    def version(name: str, version: int) -> Json:
        return read.version(store, name, version)

    @router.post("/models/{name}/rollback", summary="The version before, at once; also ends a running rollout")
    def rollback(name: str, body: WhyBody, by: Caller) -> Json:
        return actions.rollback(workspace, name, by=by, why=body.why)

    @router.get("/versions", summary="Versions, newest first")
    def versions(model: Model = None) -> list[Json]:
        return read.versions(store, model=model)

    @router.get("/runs", summary="Runs, newest first")
    def runs(model: Model = None) -> list[Json]:
        return read.runs(store, model=model)

    @router.get("/runs/{name}", summary="One run with its steps and result")
    def run(name: str) -> Json:
        return read.run(store, name)

    @router.get("/rollouts", summary="Rollouts, newest first")
    def rollouts(model: Model = None) -> list[Json]:
        return read.rollouts(store, model=model)

    @router.get("/rollouts/{name}", summary="One rollout with its plan, sums, looks and decision")
    def rollout(name: str) -> Json:
        return read.rollout(store, name)

    @router.post("/rollouts/{name}/pause", summary="Keep the shares as they are; guardrails go on")
    def pause(name: str, body: WhyBody, by: Caller) -> Json:
        return actions.pause(workspace, name, by=by, why=body.why)

    @router.post("/rollouts/{name}/resume", summary="Go on after a pause")
    def resume(name: str, body: WhyBody, by: Caller) -> Json:
        return actions.resume(workspace, name, by=by, why=body.why)

    @router.get("/alarms", summary="Alarms, open ones first")
    def alarms(model: Model = None) -> list[Json]:
        return read.alarms(store, model=model)

    @router.get("/alarms/{name}", summary="One alarm with its evidence")
    def alarm(name: str) -> Json:
        return read.alarm(store, name)

    @router.get("/reviews", summary="Reviews, open ones first")
    def reviews(model: Model = None) -> list[Json]:
        return read.reviews(store, model=model)

    @router.get("/reviews/{name}", summary="One review with its evidence and choices")
    def review(name: str) -> Json:
        return read.review(store, name)

    @router.post("/reviews/{name}/answer", summary="Answer a review")
    def answer(name: str, body: AnswerBody, by: Caller) -> Json:
        return actions.answer(workspace, name, body.answer, by=by, why=body.why)

    @router.get("/predictions/{name}", summary="One prediction of the folded log, with its answers and label")
    def prediction(name: str) -> Json:
        result: Json = jsonable(log.find(workspace, name), most_bytes=SHOWN_BYTES)
        return result

    @router.get("/audit", summary="The newest audit entries")
    def audit(subject: Annotated[str | None, Query(max_length=128)] = None) -> list[Json]:
        return read.audit_entries(store, subject=subject)

    @router.post("/clock", summary="Move a virtual clock; returns when all that is due by then has happened")
    def move_clock(body: ClockBody) -> Json:
        if advance is None:
            raise RequestError("this workspace runs on the real clock", code="real_clock", status=409)
        try:
            to = clock.parse_iso(body.to)
        except ValueError as exc:
            raise RequestError(f"to: {exc}", code="wrong_type", status=422, field="to") from exc
        if to < clock.now():
            raise RequestError(f"the clock stands at {clock.iso(clock.now())} and can't go back", code="clock_back",
                               status=409, field="to")  # fmt: skip
        return {"now": clock.iso(advance(to))}

    return router
