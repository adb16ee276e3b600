"""The console's pages: server-rendered, readable without script. They read the read models and never decide."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import jinja2
from fastapi import APIRouter, FastAPI, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fairway import __version__, clock
from fairway.errors import FairwayError, RequestError, ThingNotFound
from fairway.registry import show as read
from fairway.store import tokens
from fairway.store.workspace import Workspace
from fairway.web import actions, charts, evidence, words
from fairway.web.errors import status_of
from fairway.web.security import COOKIE, ROLES, SESSION_S, Guard

__all__ = ["error_page", "make_router", "quote"]

Json = dict[str, Any]

_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups"

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("fairway.web", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    local=words.local, plain=words.plain, short=words.short, number=words.number, traffic=words.traffic,
    live_metric=words.live_metric, shares=words.shares, metric_name=words.metric_name, person=words.person,
)  # fmt: skip
_templates.globals.update(
    words=words,
    evidence=evidence,
    version_of_fairway=__version__,
    ago=lambda at: words.ago(at, clock.now()),
    VERDICTS=words.VERDICTS,
)


def error_page(status: int, error: Json) -> str:
    """A whole page for an error, with its request id."""
    return _templates.get_template("error.html").render(status=status, error=error, identity=None, form_token="")


def make_router(workspace: Workspace, guard: Guard, app: FastAPI) -> APIRouter:
    """All pages of one workspace."""
    router = APIRouter(include_in_schema=False)
    store = workspace.store

    def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        html = _templates.get_template(template).render(
            identity=request.state.identity, form_token=guard.form_token(request), virtual=clock.is_virtual(),
            now=clock.iso(clock.now()), **values,
        )  # fmt: skip
        return HTMLResponse(html, status)

    @router.get("/")
    def home(request: Request) -> Response:
        return page(request, "status.html", found=read.status(store), gateways=read.gateways(store))

    @router.get("/models/{name}")
    def model(request: Request, name: str) -> Response:
        found = read.model(store, name)
        return page(
            request, "model.html", found=found, metric_chart=live_chart(found), versions_chart=versions_chart(found)
        )

    @router.get("/models/{name}/versions/{version}")
    def version(request: Request, name: str, version: int) -> Response:
        found = read.version(store, name, version)
        has_report = report_of(workspace, found["run"]).exists()
        return page(request, "version.html", found=found, chart=metrics_chart(found), has_report=has_report)

    @router.get("/rollouts")
    def rollouts(request: Request) -> Response:
        return page(request, "rollouts.html", rollouts=read.rollouts(store))

    @router.get("/rollouts/{name}")
    def rollout(request: Request, name: str) -> Response:
        found = read.rollout(store, name)
        decision = found["decision"] or (found["looks"][-1]["decision"] if found["looks"] else None)
        return page(
            request, "rollout.html", found=found, decision=decision, effect=effect_chart(found),
            evidence=evidence_chart(found),
        )  # fmt: skip

    @router.get("/alarms")
    def alarms(request: Request) -> Response:
        return page(request, "alarms.html", alarms=read.alarms(store))

    @router.get("/alarms/{name}")
    def alarm(request: Request, name: str) -> Response:
        return page(request, "alarm.html", found=read.alarm(store, name))

    @router.get("/reviews")
    def reviews(request: Request) -> Response:
        return page(request, "reviews.html", reviews=read.reviews(store))

    @router.get("/reviews/{name}")
    def review(request: Request, name: str) -> Response:
        return page(request, "review.html", found=read.review(store, name), problem=None, chosen="", why="")

    @router.post("/reviews/{name}/answer")
    async def answer(request: Request, name: str) -> Response:
        form = await read_form(request)
        guard.check_form(request, form)
        chosen, why = form.get("answer", ""), form.get("why", "")
        try:
            # It waits for the gateways: elsewhere, so that the console goes on answering.
            await run_in_threadpool(actions.answer, workspace, name, chosen, by=request.state.identity, why=why)
        except FairwayError as error:
            if status_of(error) not in (403, 409, 422):
                raise
            found = read.review(store, name)
            return page(
                request, "review.html", status=status_of(error), found=found, problem=str(error), chosen=chosen, why=why
            )
        return RedirectResponse(f"/reviews/{quote(name)}", status_code=303)

    @router.get("/runs")
    def runs(request: Request) -> Response:
        return page(request, "runs.html", runs=read.runs(store))

    @router.get("/runs/{name}")
    def run(request: Request, name: str) -> Response:
        found = read.run(store, name)
        return page(request, "run.html", found=found, has_report=report_of(workspace, found["run"]).exists())

    @router.get("/runs/{name}/report")
    def report(name: str) -> Response:
        found = read.run(store, name)  # the store's id, not the caller's text, becomes the path
        path = report_of(workspace, found["run"])
        if not path.exists():
            raise ThingNotFound(f"{found['run']} has no report")
        return HTMLResponse(path.read_text(), headers={"Content-Security-Policy": _REPORT_POLICY})

    @router.get("/audit")
    def audit(request: Request) -> Response:
        return page(request, "audit.html", entries=read.audit_entries(store))

    @router.get("/docs")
    def docs(request: Request) -> Response:
        routes = []
        for path, methods in app.openapi()["paths"].items():
            for method, text in methods.items():
                key = (method.upper(), path)
                routes.append({"method": key[0], "path": path, "summary": text.get("summary", ""), "role": ROLES[key]})
        return page(request, "docs.html", routes=routes)

    @router.get("/login")
    def login_page(request: Request, next: str = "/") -> Response:
        return page(request, "login.html", next=local_path(next), problem=None)

    @router.post("/login")
    async def login(request: Request) -> Response:
        form = await read_form(request)
        token = form.get("token", "").strip()
        if tokens.identify_any(workspace, token) is None:
            guard.failed()
            problem = "This token is unknown here, or has expired."
            return page(request, "login.html", status=401, next=local_path(form.get("next", "/")), problem=problem)
        answer = RedirectResponse(local_path(form.get("next", "/")), status_code=303)
        answer.set_cookie(
            COOKIE, guard.open_session(token), max_age=int(SESSION_S), httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        guard.check_form(request, await read_form(request))
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


async def read_form(request: Request) -> dict[str, str]:
    """Fields of a URL-encoded form; a field given twice is refused. Raises: RequestError 400."""
    try:
        pairs = parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20
        )
    except ValueError as exc:
        raise RequestError("the form can't be read", code="bad_form", status=400) from exc
    form = dict(pairs)
    if len(form) != len(pairs):
        raise RequestError("a field stands twice in the form", code="bad_form", status=400)
    return form


def local_path(text: str) -> str:
    """Where to go after logging in: a path of this console, never another site."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if safe else "/"


def report_of(workspace: Workspace, run: str) -> Path:
    return workspace.folder / "runs" / run / "report.html"


# -- charts ----------------------------------------------------------------------------------------------------------


def live_chart(found: Json) -> Markup:
    """The live metric of each judged window with its 95 % interval; windows of other metrics are left out."""
    judged = [(window, words.headline(window["performance"])) for window in found["windows"] if window["performance"]]
    judged = [(window, figures) for window, figures in judged if figures[1] is not None]
    if not judged:
        return Markup("")
    name = judged[-1][1][0]
    points = [
        charts.Point(_at(window["start_at"]), value, low, high, f"{window['performance']['n']:,} labelled rows, "
                     f"@{window['performance'].get('version', '?')}")
        for window, (metric, value, low, high) in judged
        if metric == name
    ]  # fmt: skip
    title = f"{name} per window, with 95 % intervals"
    return Markup(charts.line_chart(title, [charts.Line(name, points)], dots=True))


def versions_chart(found: Json) -> Markup:
    """The first metric of each version with its interval, oldest first, on one scale."""
    rows = []
    for version in reversed(found["versions"][:12]):
        figures = words.estimates(version["metrics"])
        if figures:
            name, value, low, high = figures[0]
            rows.append((f"@{version['version']} {name}", value, low, high))
    return Markup(charts.interval_chart("each version on its own held-out rows", rows) if len(rows) > 1 else "")


def metrics_chart(found: Json) -> Markup:
    """A version's bounded metrics with their intervals."""
    rows = [row for row in words.estimates(found["metrics"]) if 0.0 <= row[1] <= 1.0]
    return Markup(charts.interval_chart("metrics with 95 % intervals", rows))


def effect_chart(found: Json) -> Markup:
    """The primary's effect with its confidence sequence over looks; above the rule the challenger is not worse."""
    points, margin = [], None
    for look, check in _checks(found, "primary"):
        points.append(charts.Point(_at(look["at"]), check.get("effect"), check.get("low"), check.get("high"),
                                   f"{check.get('n', 0):,} labelled predictions"))  # fmt: skip
        margin = check.get("margin", margin)
    rules = [charts.Rule(-margin, "worse by margin"), charts.Rule(0.0, "equal")] if margin is not None else []
    return Markup(charts.line_chart("loss saved per row, with its confidence sequence", [charts.Line("effect", points)],
                                    rules=rules))  # fmt: skip


def evidence_chart(found: Json) -> Markup:
    """Evidence of harm per guardrail over looks, as powers of ten; at the rule the rollout goes back."""
    lines, bar = [], None
    names = {check["name"] for look in found["looks"] for check in look["decision"]["checks"] if "n1" in check}
    for name in sorted(names):
        points = []
        for look, check in _checks(found, name):
            log_e = check.get("log_e")
            value = log_e / math.log(10.0) if log_e is not None else None
            points.append(charts.Point(_at(look["at"]), value, note=str(check.get("text", ""))))
            bar = check.get("bar", bar)
        lines.append(charts.Line(name, points))
    rules = [charts.Rule(bar / math.log(10.0), f"acts at {math.exp(bar):,.0f}")] if bar is not None else []
    return Markup(charts.line_chart("evidence of harm (powers of ten)", lines, rules=rules))


def _checks(found: Json, name: str) -> list[tuple[Json, Json]]:
    return [(look, c) for look in found["looks"] for c in look["decision"]["checks"] if c["name"] == name]


def _at(text: str) -> datetime:
    return clock.parse_iso(text)
