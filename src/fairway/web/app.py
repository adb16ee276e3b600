"""The console: pages for people and the management API, over one workspace."""

import logging
from collections.abc import Iterable
from importlib import resources
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fairway import __version__
from fairway.errors import FairwayError, RequestError, ThingNotFound
from fairway.store.workspace import Workspace
from fairway.web import api, pages
from fairway.web.errors import body_of, json_answer, status_of
from fairway.web.front import Front, request_id
from fairway.web.security import Guard

log = logging.getLogger(__name__)

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_TYPES = {"css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


def create_app(
    workspace: Workspace, *, hosts: Iterable[str] = LOCAL_HOSTS, advance: api.Advance | None = None
) -> FastAPI:
    """The ASGI app.

    hosts: names that callers may use in the Host header. advance: given with a virtual clock, moves it and returns
    the new time once everything due has happened.
    """
    guard = Guard(workspace, frozenset(hosts))

    def authorise(request: Request) -> None:
        request.state.identity = guard.authorise(request)

    app = FastAPI(
        title="fairway", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        dependencies=[Depends(authorise)],
    )  # fmt: skip
    app.add_middleware(Front, guard=guard)
    app.include_router(api.make_router(workspace, advance=advance))
    app.include_router(pages.make_router(workspace, guard, app))
    files = _static_files()

    @app.get("/healthz", include_in_schema=False)
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/openapi.json", include_in_schema=False)
    def schema() -> dict[str, Any]:
        return app.openapi()

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in files:  # only names that were read at start: no text of a caller becomes a path
            raise ThingNotFound("no such file")
        return Response(
            files[name], media_type=_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": "max-age=60"}
        )

    @app.exception_handler(FairwayError)
    def known(request: Request, error: FairwayError) -> Response:
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or None
        text = f"{field}: {first['msg']}" if field else str(first["msg"])
        return _answer(request, RequestError(text, code="invalid", status=422, field=field))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        text = {404: "there is nothing here", 405: "this method is not for this route"}
        message = text.get(error.status_code, str(error.detail))
        return _answer(request, RequestError(message, code=code, status=error.status_code))

    @app.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> Response:
        log.error("request %s failed", request_id(request), exc_info=error)
        return _answer(request, FairwayError("our failure"))

    return app


def _answer(request: Request, error: FairwayError) -> Response:
    """JSON for programs, a page for people; somebody without a session is sent to log in."""
    wants_page = not request.url.path.startswith(("/api/", "/openapi.json")) and "text/html" in request.headers.get(
        "accept", ""
    )
    if not wants_page:
        return json_answer(error, request_id(request))
    if status_of(error) == 401 and request.method == "GET":
        return RedirectResponse(f"/login?next={pages.quote(request.url.path)}", status_code=303)
    return HTMLResponse(pages.error_page(status_of(error), body_of(error, request_id(request))), status_of(error))


def _static_files() -> dict[str, bytes]:
    folder = resources.files("fairway.web") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
