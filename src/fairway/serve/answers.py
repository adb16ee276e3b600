"""Answers of a gateway as bytes: JSON, errors in their one shape, and the small rules about ids."""

import hashlib
from typing import Any

import msgspec

from fairway.errors import RequestError

MAX_REQUEST_ID = 128

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body

JSON = {"content-type": "application/json"}
BAD_ID = f"a request id is 1 to {MAX_REQUEST_ID} printable ASCII characters"


def failure(error: RequestError, request_id: str) -> Answer:
    """The one shape of errors."""
    body = {"error": str(error), "code": error.code, "field": error.field, "request_id": request_id}
    headers = dict(JSON)
    if error.status in (429, 503, 504):
        headers["retry-after"] = "1"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return error.status, headers, msgspec.json.encode(body)


def as_json(status: int, value: Any) -> Answer:
    return status, JSON, msgspec.json.encode(value)


def is_request_id(text: str) -> bool:
    return 0 < len(text) <= MAX_REQUEST_ID and text.isascii() and text.isprintable()


def event_id(*parts: Any) -> str:
    """The id of a label whose sender gave none: the same label sent again has the same."""
    return "h-" + hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:24]
