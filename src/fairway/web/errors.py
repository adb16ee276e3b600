"""From errors to answers: one table of statuses, one JSON shape, and the same in HTML for a person."""

from typing import Any

from starlette.responses import JSONResponse

from fairway.errors import (
    FairwayError,
    MissingExtra,
    ModelNotFound,
    NotAllowed,
    NotServed,
    Refused,
    RequestError,
    StoreError,
    ThingNotFound,
    Unfinished,
    UsageError,
    VersionNotFound,
)

# First match wins, so what is special stands before what is general.
STATUS: tuple[tuple[type[FairwayError], int], ...] = (
    (ModelNotFound, 404),
    (VersionNotFound, 404),
    (ThingNotFound, 404),
    (NotAllowed, 403),
    (NotServed, 409),
    (MissingExtra, 501),
    (UsageError, 422),
    (Refused, 409),
    (Unfinished, 202),  # it was accepted and is stored; not every process has acted on it yet
    (StoreError, 503),
)


def status_of(error: FairwayError) -> int:
    """The HTTP status of an error; 500 for what has none."""
    if isinstance(error, RequestError):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def body_of(error: FairwayError, request_id: str) -> dict[str, Any]:
    """The one shape of errors. What is our failure says nothing of its insides."""
    message = str(error)
    if status_of(error) >= 500 and not isinstance(error, RequestError):
        message = f"our failure ({error.code}); the log of the console names this request id"
    return {"error": message, "code": error.code, "field": error.field, "request_id": request_id}


def json_answer(error: FairwayError, request_id: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status_of(error) == 401 else None
    return JSONResponse(body_of(error, request_id), status_code=status_of(error), headers=headers)
