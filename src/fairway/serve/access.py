"""Who may call a gateway: hosts, origins and tokens. Local pages of other sites are callers too, and not trusted."""

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from fairway import clock
from fairway.errors import RequestError

HOSTS = frozenset(("127.0.0.1", "localhost", "[::1]"))
PUBLIC = frozenset(("/healthz", "/readyz"))
_FAILURES, _FAILURE_S = 20, 60.0  # wrong tokens before 429, and how long each counts
_FULL = frozenset(("admin", "scientist"))


class Token(msgspec.Struct, frozen=True):
    """A token that is let in. digest: SHA-256, hex. expires_us: None = never."""

    digest: str
    roles: list[str]
    expires_us: int | None = None


class Access:
    """The rules of one gateway; the supervisor hands it the tokens."""

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self.tokens = tuple(tokens)
        self.used: dict[str, int] = {}  # digest: microseconds of its last use; the supervisor takes them
        self._failures: deque[float] = deque()

    def take_used(self) -> dict[str, int]:
        """Last uses of tokens since the last call."""
        used, self.used = self.used, {}
        return used

    def check(self, method: str, path: str, headers: Mapping[str, str], *, role: str | None) -> None:
        """Raises: RequestError 400 bad_host, 403 bad_origin or not_allowed, 401 unauthorized, 415 content_type, 429
        too_many_failures: after many wrong tokens within a minute; right ones are never slowed."""
        host = headers.get("host", "")
        if _name(host) not in HOSTS:
            raise RequestError(f"host {host[:100]!r} is not served here; use 127.0.0.1", code="bad_host", status=400)
        if method == "POST":
            _check_origin(headers)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RequestError(
                    f"content type {kind[:100]!r} is not read; send application/json", code="content_type", status=415
                )
            if headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise RequestError("compressed bodies are not read", code="content_encoding", status=415)
        if role is not None:
            self._check_token(headers.get("authorization", ""), role)

    def _check_token(self, header: str, role: str) -> None:
        scheme, _, token = header.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).hexdigest() if scheme.lower() == "bearer" else ""
        found: Token | None = None
        for known in self.tokens:  # all of them: how long it takes says nothing of which was near
            if hmac.compare_digest(known.digest, digest):
                found = known
        now_us = clock.to_us(clock.now())
        if found is None or (found.expires_us is not None and found.expires_us <= now_us):
            if digest:  # somebody who names no token guesses none
                self._failed()
            raise RequestError(
                "a token is needed: Authorization: Bearer fw_… (the workspace's own is in .fairway/token)",
                code="unauthorized",
                status=401,
            )
        if role not in found.roles and not _FULL.intersection(found.roles) and role != "any":
            raise RequestError(f"this token may not {role}", code="not_allowed", status=403)
        self.used[found.digest] = now_us

    def _failed(self) -> None:
        now_s = clock.elapsed()
        self._failures.append(now_s)
        while self._failures[0] < now_s - _FAILURE_S or len(self._failures) > _FAILURES + 1:
            self._failures.popleft()
        if len(self._failures) > _FAILURES:
            raise RequestError("too many wrong tokens; wait a minute", code="too_many_failures", status=429)


def _check_origin(headers: Mapping[str, str]) -> None:
    origin = headers.get("origin")
    foreign = origin is not None and (origin == "null" or _name(urlsplit(origin).netloc) not in HOSTS)
    if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin", "same-site"):
        raise RequestError("requests from pages of another site are refused", code="bad_origin", status=403)


def _name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()
