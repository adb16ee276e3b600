"""What a gateway speaks, as an OpenAPI document."""

from typing import Any


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _answer(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


_ERROR = {"$ref": "#/components/schemas/Error"}
_ERRORS = {
    str(status): _answer(about, _ERROR)
    for status, about in {
        400: "not JSON, or a foreign host",
        401: "no token",
        403: "this token may not, or a foreign origin",
        404: "no such model or source",
        409: "this request id came with another body",
        410: "the model is retired",
        413: "more than 10 MiB or 10,000 rows",
        415: "not application/json",
        422: "a field is wrong; `field` names it",
        503: "no champion, loading, overloaded or the log is full; see Retry-After",
        504: "the model did not answer in time",
    }.items()
}
_ACCEPTED = {"202": _answer("kept", {"$ref": "#/components/schemas/Accepted"})}
_ROWS: dict[str, Any] = {"type": "array", "maxItems": 10000, "items": {"type": "object"}}
_OPEN: list[Any] = []


def _path(name: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "fairway gateway", "version": "1"},
    "security": [{"token": []}],
    "paths": {
        "/v1/models/{name}/predict": {
            "post": {
                "summary": "Predict rows; logged before it is answered",
                "parameters": _path("name"),
                "requestBody": _body(
                    {
                        "type": "object",
                        "required": ["rows"],
                        "additionalProperties": False,
                        "properties": {"rows": _ROWS, "request_id": {"type": "string", "maxLength": 128}},
                    }
                ),
                "responses": {
                    "200": _answer("one output per row, in order", {"$ref": "#/components/schemas/Predicted"}),
                    **_ERRORS,
                },
            }
        },
        "/v1/feedback": {
            "post": {
                "summary": "Say what turned out to be true; counted once per prediction, name and event",
                "requestBody": _body(
                    {
                        "oneOf": [
                            {"$ref": "#/components/schemas/Feedback"},
                            {
                                "type": "object",
                                "required": ["rows"],
                                "properties": {
                                    "rows": {"type": "array", "items": {"$ref": "#/components/schemas/Feedback"}}
                                },
                            },
                        ]
                    }
                ),
                "responses": {**_ACCEPTED, **_ERRORS},
            }
        },
        "/v1/sources/{name}": {
            "post": {
                "summary": "Events of a source table; exactly once by key",
                "parameters": _path("name"),
                "requestBody": _body({"type": "object", "required": ["rows"], "properties": {"rows": _ROWS}}),
                "responses": {**_ACCEPTED, **_ERRORS},
            }
        },
        "/healthz": {
            "get": {"summary": "Alive", "security": _OPEN, "responses": {"200": _answer("alive", {"type": "object"})}}
        },
        "/readyz": {
            "get": {
                "summary": "Every endpoint with a champion answers",
                "security": _OPEN,
                "responses": {
                    "200": _answer("ready", {"type": "object"}),
                    "503": _answer("`loading` names what is missing", {"type": "object"}),
                },
            }
        },
        "/metrics": {
            "get": {"summary": "Prometheus text, all gateways", "responses": {"200": {"description": "text"}}}
        },
        "/openapi.json": {"get": {"summary": "This document", "responses": {"200": _answer("it", {"type": "object"})}}},
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Error": {
                "type": "object",
                "required": ["error", "code", "field", "request_id"],
                "properties": {
                    "error": {"type": "string"},
                    "code": {"type": "string"},
                    "field": {"type": ["string", "null"]},
                    "request_id": {"type": "string"},
                },
            },
            "Accepted": {"type": "object", "properties": {"accepted": {"type": "integer"}}},
            "Feedback": {
                "type": "object",
                "required": ["id", "label"],
                "properties": {
                    "id": {"type": "string"},
                    "label": {"type": ["string", "number", "boolean"]},
                    "at": {"type": "string", "format": "date-time"},
                    "event": {"type": "string"},
                },
            },
            "Predicted": {
                "type": "object",
                "required": ["model", "request_id", "outputs"],
                "properties": {
                    "model": {"type": "string"},
                    "request_id": {"type": "string"},
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["id", "version"],
                            "properties": {
                                "id": {"type": "string"},
                                "version": {"type": "integer"},
                                "label": {"type": ["string", "integer", "boolean"]},
                                "probability": {"type": "object", "additionalProperties": {"type": "number"}},
                                "value": {"type": "number"},
                                "error": {"type": "string"},
                                "code": {"enum": ["model_error", "timeout", "shed"]},
                            },
                        },
                    },
                },
            },
        },
    },
}
