"""Every route has a role; nothing answers without the right one; other sites can change nothing."""

# ruff: noqa: F401, F811 - fixtures are imported by name

import re
from typing import Any

import pytest
from console_browser import HOST, Browser, app, as_role, browser, keys, workspace
from fastapi import FastAPI

from fairway.store.workspace import Workspace
from fairway.web.app import create_app
from fairway.web.security import FORMS, ROLES

LOW = {"viewer": "predict", "scientist": "viewer", "admin": "scientist", "approver": "viewer"}
NAMES = {"{name}": "late-flights", "{version}": "1"}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def paths_of(app: FastAPI) -> set[tuple[str, str]]:
    """(method, path) of every route that the app really has, however it nests them."""
    found: set[tuple[str, str]] = set()

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            if getattr(route, "methods", None) and hasattr(route, "endpoint"):
                path = route.path if route.path.startswith(prefix) else prefix + route.path
                found.update((method, path) for method in route.methods - {"HEAD"})
            elif inner is not None and hasattr(inner, "routes"):
                walk(inner.routes, prefix)
            else:
                raise AssertionError(f"a route of an unknown kind: {route!r}")

    walk(app.routes, "")
    return found


def test_the_table_names_exactly_the_routes(app: FastAPI) -> None:
    assert paths_of(app) == set(ROLES)


def send(browser: Browser, method: str, path: str, **options: Any) -> Any:
    for name, value in NAMES.items():
        path = path.replace(name, value)
    if method == "POST":
        kind = FORM if (method, path) in FORMS or (path.endswith("/answer") and not path.startswith("/api")) else JSON
        options.setdefault("content", b"a=b" if kind == FORM else b"{}")
        options.setdefault("headers", {"Content-Type": kind})
    return browser.ask(method, path, **options)


@pytest.mark.parametrize("route", sorted(ROLES), ids=lambda r: " ".join(r))
def test_every_route_without_with_wrong_and_with_low_token(
    route: tuple[str, str], app: FastAPI, keys: dict[str, str]
) -> None:
    role = ROLES[route]
    without = send(Browser(app), *route)
    wrong = send(Browser(app, {"Authorization": "Bearer fw_" + "x" * 43}), *route)
    if role is None:
        assert without.status_code != 403
        return
    assert without.status_code == 401
    assert set(without.json()) == {"error", "code", "field", "request_id"}
    assert wrong.status_code in (401, 429)
    low = send(Browser(app, {"Authorization": f"Bearer {keys[LOW[role]]}"}), *route)
    assert (low.status_code, low.json()["code"]) == (403, "not_allowed")


def test_a_route_that_the_table_does_not_name_is_refused(workspace: Workspace, keys: dict[str, str]) -> None:
    app = create_app(workspace)
    app.get("/forgotten")(lambda: {"open": True})
    answer = Browser(app, {"Authorization": f"Bearer {keys['owner']}"}).get("/forgotten")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")


def test_foreign_hosts_are_refused(as_role: Any) -> None:
    answer = as_role("owner").get("/api/v1/status", headers={"Host": "evil.example:8081"})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
def test_changes_from_other_sites_are_refused(as_role: Any, headers: dict[str, str]) -> None:
    answer = as_role("owner").post("/api/v1/models/late-flights/rollback", json={}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_origin")


def test_the_api_takes_only_json(as_role: Any) -> None:
    for kind in (FORM, "text/plain", "multipart/form-data; boundary=x", ""):
        answer = as_role("owner").post(
            "/api/v1/models/late-flights/rollback", content=b"{}", headers={"Content-Type": kind}
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "content_type")


def test_unknown_keys_and_large_bodies_are_refused(as_role: Any) -> None:
    answer = as_role("owner").post("/api/v1/models/late-flights/rollback", json={"because": "x"})
    assert (answer.status_code, answer.json()["field"]) == (422, "because")
    answer = as_role("owner").post(
        "/api/v1/models/late-flights/rollback", content=b" " * 2_000_000, headers={"Content-Type": JSON}
    )
    assert answer.status_code == 413


def test_pages_carry_a_strict_policy_and_no_script(as_role: Any) -> None:
    answer = as_role("owner").get("/models/late-flights")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "script" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script|\son\w+=|style=|javascript:|https?://(?!www\.w3\.org)", answer.text)


# -- sessions --------------------------------------------------------------------------------------------------------


def log_in(browser: Browser, token: str) -> Any:
    return browser.post("/login", data={"token": token, "next": "/reviews"}, headers={"Origin": HOST})


def test_a_person_logs_in_and_out(workspace: Workspace, keys: dict[str, str]) -> None:
    browser = Browser(create_app(workspace))  # its own: no wrong tokens before
    first = browser.get("/", headers={"Accept": "text/html"})
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=/")
    assert log_in(browser, "fw_wrong").status_code == 401
    entered = log_in(browser, keys["viewer"])
    assert (entered.status_code, entered.headers["location"]) == (303, "/reviews")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert keys["viewer"] not in cookie
    page = browser.get("/reviews")
    assert page.status_code == 200 and "viewer@example.com" in page.text
    form = re.search(r'name="form_token" value="(\w+)"', page.text)
    assert form is not None
    out = browser.post("/logout", data={"form_token": form[1]}, headers={"Origin": HOST})
    assert out.status_code == 303
    assert browser.get("/reviews").status_code == 401


def test_a_changed_cookie_is_nobodys(browser: Browser, keys: dict[str, str]) -> None:
    log_in(browser, keys["owner"])
    value = browser.cookies["fairway_session"]
    for changed in (value[:-1] + ("0" if value[-1] != "0" else "1"), "x", "", "....", value.replace(".", "é", 1)):
        answer = browser.get("/", headers={"Cookie": f"fairway_session={changed}".encode()})
        assert answer.status_code in (200, 401)
        fresh = Browser(browser.app).get("/", headers={"Cookie": f"fairway_session={changed}".encode()})
        assert fresh.status_code == 401


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x"])
def test_login_never_leads_elsewhere(browser: Browser, keys: dict[str, str], target: str) -> None:
    answer = browser.post("/login", data={"token": keys["owner"], "next": target}, headers={"Origin": HOST})
    assert answer.headers["location"] == "/"


def test_forms_need_their_own_token(browser: Browser, keys: dict[str, str]) -> None:
    log_in(browser, keys["owner"])
    for given in ({}, {"form_token": "0" * 64}):
        answer = browser.post("/reviews/review-1/answer", data={"answer": "continue", **given})
        assert (answer.status_code, answer.json()["code"]) == (403, "form_token")


def test_wrong_tokens_are_slowed_and_right_ones_are_not(workspace: Workspace, keys: dict[str, str]) -> None:
    app = create_app(workspace)
    wrong = Browser(app, {"Authorization": "Bearer fw_no"})
    codes = {wrong.get("/api/v1/status").status_code for _ in range(30)}
    assert codes == {401, 429}
    assert Browser(app, {"Authorization": f"Bearer {keys['viewer']}"}).get("/api/v1/status").status_code == 200
