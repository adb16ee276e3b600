"""Who may call which route of the console: one table of roles, and the checks that stand before every handler.

Localhost is hostile: any page in the person's browser can send requests here. So the Host must be ours, whatever
changes something must come from our own pages (Origin, Sec-Fetch-Site), the API takes only JSON (which a form can't
send), the pages' forms carry a token derived from the session, and everything but health and login needs a token.
"""

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fairway import clock
from fairway.errors import RequestError
from fairway.store import tokens
from fairway.store.tokens import Identity
from fairway.store.workspace import Workspace

if TYPE_CHECKING:  # the command line shares the roles, and has no use for a web framework
    from starlette.requests import Request

COOKIE = "fairway_session"
SESSION_S = 12 * 3600.0
_FAILURES, _FAILURE_S = 20, 60.0  # wrong tokens before 429, and how long each counts
_SAFE = ("GET", "HEAD", "OPTIONS")

# Every route stands here with the role it needs; None is open. A route that is missing is refused.
ROLES: dict[tuple[str, str], str | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/static/{name}"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("POST", "/logout"): "viewer",
    ("GET", "/"): "viewer",
    ("GET", "/models/{name}"): "viewer",
    ("GET", "/models/{name}/versions/{version}"): "viewer",
    ("GET", "/rollouts"): "viewer",
    ("GET", "/rollouts/{name}"): "viewer",
    ("GET", "/alarms"): "viewer",
    ("GET", "/alarms/{name}"): "viewer",
    ("GET", "/reviews"): "viewer",
    ("GET", "/reviews/{name}"): "viewer",
    ("POST", "/reviews/{name}/answer"): "viewer",  # the review's kind decides which role: see `answer_role`
    ("GET", "/runs"): "viewer",
    ("GET", "/runs/{name}"): "viewer",
    ("GET", "/runs/{name}/report"): "viewer",
    ("GET", "/audit"): "viewer",
    ("GET", "/docs"): "viewer",
    ("GET", "/openapi.json"): "viewer",
    ("GET", "/api/v1/status"): "viewer",
    ("GET", "/api/v1/models"): "viewer",
    ("GET", "/api/v1/models/{name}"): "viewer",
    ("GET", "/api/v1/models/{name}/versions/{version}"): "viewer",
    ("POST", "/api/v1/models/{name}/rollback"): "scientist",
    ("GET", "/api/v1/versions"): "viewer",
    ("GET", "/api/v1/runs"): "viewer",
    ("GET", "/api/v1/runs/{name}"): "viewer",
    ("GET", "/api/v1/rollouts"): "viewer",
    ("GET", "/api/v1/rollouts/{name}"): "viewer",
    ("POST", "/api/v1/rollouts/{name}/pause"): "scientist",
    ("POST", "/api/v1/rollouts/{name}/resume"): "scientist",
    ("GET", "/api/v1/alarms"): "viewer",
    ("GET", "/api/v1/alarms/{name}"): "viewer",
    ("GET", "/api/v1/reviews"): "viewer",
    ("GET", "/api/v1/reviews/{name}"): "viewer",
    ("POST", "/api/v1/reviews/{name}/answer"): "viewer",
    ("GET", "/api/v1/predictions/{name}"): "scientist",  # holds inputs: more than a viewer needs
    ("GET", "/api/v1/audit"): "viewer",
    ("POST", "/api/v1/clock"): "admin",
}
FORMS = {("POST", "/login"), ("POST", "/logout"), ("POST", "/reviews/{name}/answer")}


def answer_role(kind: str) -> str:
    """The role that may answer a review of this kind: an approval takes an approver."""
    return "approver" if kind == "approve" else "scientist"


@dataclass
class Guard:
    """The checks of one console. Thread-safe enough: the failure list only ever loses its oldest entries."""

    workspace: Workspace
    hosts: frozenset[str]
    failures: deque[float] = field(default_factory=deque)

    def check_host(self, host: str) -> None:
        """Raises: RequestError 421 for a Host that is not ours (DNS rebinding)."""
        name = urlsplit(f"//{host}").hostname or ""
        if name not in self.hosts:
            raise RequestError("this host name is not served here", code="wrong_host", status=421)

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises: RequestError 403 for a change that another site's page asks for."""
        if method in _SAFE:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host", "")
        if foreign or (site is not None and site not in ("same-origin", "none")):
            raise RequestError("refused: the request comes from another site", code="wrong_origin", status=403)

    def authorise(self, request: "Request") -> Identity | None:
        """The caller, if the role table lets them; also checks a form's token and an API call's content type.

        Raises: RequestError 401, 403, 415 or 429.
        """
        path = getattr(request.scope.get("route"), "path", "")
        key = ("GET" if request.method == "HEAD" else request.method, path)
        if key not in ROLES:
            raise RequestError("this route has no role, so nobody may call it", code="not_allowed", status=403)
        self._check_content_type(request, key)
        needed = ROLES[key]
        identity = self.identify(request)
        if needed is None:
            return identity
        if identity is None:
            raise RequestError("a token is needed: Authorization: Bearer fw_...", code="no_token", status=401)
        if not identity.may(needed):
            raise RequestError(f"this needs the role {needed}", code="not_allowed", status=403)
        return identity

    def _check_content_type(self, request: "Request", key: tuple[str, str]) -> None:
        if request.method in _SAFE:
            return
        given = request.headers.get("content-type", "").split(";")[0].strip().lower()
        wanted = "application/x-www-form-urlencoded" if key in FORMS else "application/json"
        if given != wanted:
            raise RequestError(f"content type must be {wanted}", code="content_type", status=415)

    def identify(self, request: "Request") -> Identity | None:
        """The caller by Bearer token, else by session cookie; None without either. Raises: RequestError 401, 429."""
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            identity = tokens.identify_any(self.workspace, token.strip()) if scheme.lower() == "bearer" else None
            if identity is None:
                self.failed()
                raise RequestError("the token is unknown or has expired", code="wrong_token", status=401)
            return identity
        cookie = request.cookies.get(COOKIE)
        return self._of_session(cookie) if cookie else None

    def failed(self) -> None:
        """Note a wrong token. Raises: RequestError 429 after too many; right tokens are never slowed."""
        now = clock.elapsed()
        self.failures.append(now)
        while self.failures and self.failures[0] < now - _FAILURE_S:
            self.failures.popleft()
        if len(self.failures) > _FAILURES:
            raise RequestError("too many wrong tokens; wait a minute", code="too_many_failures", status=429)

    # -- sessions: signed, so that a restarted console knows them; tied to the token, so that they end with it --------

    def open_session(self, token: str) -> str:
        """The cookie of somebody who logged in with `token`."""
        until = int(clock.elapsed() + SESSION_S)
        body = f"{tokens.digest_of(token)}.{until}.{secrets.token_urlsafe(9)}"
        return f"{body}.{self._sign('session', body)}"

    def _of_session(self, cookie: str) -> Identity | None:
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", body).encode(), signature.encode()):
            return None
        digest, until, _nonce = body.split(".", 2)
        # elapsed() starts anew with the machine: a session may then not seem to last longer than any session does.
        if not 0 < int(until) - clock.elapsed() <= SESSION_S:
            return None
        return tokens.identify_digest(self.workspace, digest)

    def form_token(self, request: "Request") -> str:
        """What our own forms carry and no other site can know."""
        return self._sign("form", request.cookies.get(COOKIE, ""))

    def check_form(self, request: "Request", form: Mapping[str, str]) -> None:
        """Raises: RequestError 403 unless the form was made by our page for this session."""
        cookie = request.cookies.get(COOKIE)
        if not cookie or not hmac.compare_digest(
            self.form_token(request).encode(), form.get("form_token", "").encode()
        ):
            raise RequestError("the form is too old or not ours: load the page again", code="form_token", status=403)

    def _sign(self, purpose: str, text: str) -> str:
        key = self.workspace.token().encode()
        return hmac.new(key, f"{purpose}\x1f{text}".encode(), hashlib.sha256).hexdigest()
