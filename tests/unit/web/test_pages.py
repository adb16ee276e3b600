"""Every page shows what the store holds, to a person without script."""

# ruff: noqa: F401, F811 - fixtures are imported by name

from pathlib import Path
from typing import Any

import pytest
from console_browser import HOST, Browser, app, as_role, keys, workspace
from fastapi import FastAPI

from fairway.registry import show
from fairway.store import audit
from fairway.store.workspace import Workspace
from fairway.web.app import create_app

PAGES = {
    "/": ["2 questions for a person", "late-flights", "review-1", "AUC 0.640", "churn"],
    "/models/late-flights": ["90 % @2, 10 % @3", "<svg", "rollout-2", "origin notice"],
    "/models/churn": ["no version was deployed", "unknown: no predictions yet"],
    "/models/late-flights/versions/2": ["may be deployed", "/runs/run-0002/report", "<svg"],
    "/models/late-flights/versions/3": ["waits for a person", "210 ms"],
    "/rollouts": ["rollout-1", "rollout-2"],
    "/rollouts/rollout-2": ["canary 10 %", "acts at 40", "12,960", "<svg", "over a million"],
    "/rollouts/rollout-1": ["promoted", "No request has been counted"],
    "/alarms": ["alarm-1", "alarm-2"],
    "/alarms/alarm-1": ["0.186", "origin", "retrain"],
    "/reviews": ["approve for production?"],
    "/reviews/review-1": ["the shift is wanted", '<form method="post"'],
    "/runs": ["run-bad1", "failed"],
    "/runs/run-0002": ["58,000 rows", "as before", "Read the report"],
    "/runs/run-bad1": ["column &#34;dist&#34; not found"],
    "/runs/run-0002/report": ["Report of run-0002"],
    "/audit": ["version: register"],
    "/docs": ["/api/v1/models/{name}/rollback", "scientist"],
    "/login": ["Token"],
}


@pytest.mark.parametrize("path", PAGES)
def test_pages_show_what_there_is(path: str, as_role: Any) -> None:
    answer = as_role("owner").get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    missing = [text for text in PAGES[path] if text not in answer.text]
    assert not missing


def test_what_is_not_there_is_a_page_or_json_by_who_asks(as_role: Any) -> None:
    person = as_role("viewer").get("/models/nope", headers={"Accept": "text/html"})
    assert person.status_code == 404 and "no model &#39;nope&#39;" in person.text
    program = as_role("viewer").get("/api/v1/models/nope")
    assert program.json()["code"] == "model_not_found"
    assert program.headers["x-request-id"] == program.json()["request_id"]
    assert as_role("viewer").get("/api/v1/nowhere").json()["code"] == "not_found"
    assert as_role("viewer").ask("DELETE", "/api/v1/status").json()["code"] == "method_not_allowed"


def test_the_api_says_what_the_read_models_say(as_role: Any, workspace: Workspace) -> None:
    ask = as_role("scientist").get
    assert ask("/api/v1/models/late-flights/versions/2").json() == show.version(workspace.store, "late-flights", 2)
    assert ask("/api/v1/rollouts/rollout-2").json() == show.rollout(workspace.store, "rollout-2")
    assert ask("/api/v1/reviews").json() == show.reviews(workspace.store)
    assert ask("/api/v1/runs/run-0001").json()["version"] == "late-flights@1"
    assert ask("/api/v1/predictions/p-0").status_code == 404
    assert [m["model"] for m in ask("/api/v1/models").json()] == ["churn", "late-flights"]


def test_the_clock_is_moved_only_when_it_is_virtual(as_role: Any, workspace: Workspace, keys: dict[str, str]) -> None:
    assert as_role("admin").post("/api/v1/clock", json={"to": "2030-01-01T00:00:00Z"}).json()["code"] == "real_clock"
    moved = []
    app = create_app(workspace, advance=lambda to: moved.append(to) or to)  # type: ignore[func-returns-value]
    admin = Browser(app, {"Authorization": f"Bearer {keys['owner']}"})
    answer = admin.post("/api/v1/clock", json={"to": "2130-01-01T00:00:00Z"})
    assert answer.json() == {"now": "2130-01-01T00:00:00Z"} and len(moved) == 1
    for wrong in ("yesterday", "2130-01-01T00:00:00", "1999-01-01T00:00:00Z"):
        assert admin.post("/api/v1/clock", json={"to": wrong}).json()["field"] == "to"
    assert len(moved) == 1


def test_a_report_may_not_run_anything(as_role: Any) -> None:
    answer = as_role("viewer").get("/runs/run-0002/report")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert as_role("viewer").get("/runs/run-bad1/report").status_code == 404


def test_markup_in_the_store_stays_text(tmp_path: Path) -> None:
    import sqlalchemy as sa
    from filled_store import fill

    from fairway.store import schema

    workspace = fill(tmp_path)
    evil = "<script>alert(1)</script>"
    with workspace.store.write() as tx:
        where = schema.review.c.review == "review-1"
        tx.execute(sa.update(schema.review).where(where).values(question=evil, evidence={evil: [{evil: evil}]}))
        tx.execute(sa.update(schema.alarm).values(subject=evil, evidence={"a": evil}))
        tx.execute(sa.update(schema.run).values(error=evil, cause=evil))
        audit.record(workspace.store, tx, actor=evil, action=evil, subject=evil, note=evil)
    owner = Browser(create_app(workspace), {"Authorization": f"Bearer {workspace.token()}"})
    pages = ("/", "/reviews/review-1", "/reviews", "/alarms/alarm-1", "/alarms", "/runs/run-bad1", "/runs", "/audit")
    for path in (*pages, "/models/late-flights"):
        assert "<script" not in owner.get(path).text
    workspace.store.close()


# -- answering -------------------------------------------------------------------------------------------------------


def form_of(browser: Browser, path: str) -> str:
    import re

    found = re.search(r'name="form_token" value="(\w+)"', browser.get(path).text)
    assert found is not None
    return found[1]


def test_only_an_approver_approves(app: FastAPI, keys: dict[str, str], as_role: Any) -> None:
    for role in ("owner", "scientist", "admin"):
        answer = as_role(role).post("/api/v1/reviews/review-2/answer", json={"answer": "approve", "why": "x"})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    person = Browser(app)
    person.post("/login", data={"token": keys["admin"]})
    page = person.post(
        "/reviews/review-2/answer",
        data={"form_token": form_of(person, "/reviews/review-2"), "answer": "approve", "why": "because <b>"},
        headers={"Origin": HOST},
    )
    assert page.status_code == 403
    assert "needs the role approver" in page.text and "because &lt;b&gt;" in page.text


def test_an_unknown_choice_is_refused_by_name(as_role: Any) -> None:
    answer = as_role("scientist").post("/api/v1/reviews/review-1/answer", json={"answer": "perhaps"})
    assert (answer.status_code, answer.json()["field"]) == (422, "answer")
    assert "continue, rollback" in answer.json()["error"]


def test_a_form_answers_a_review_once(tmp_path: Path) -> None:
    from filled_store import fill

    workspace = fill(tmp_path)
    person = Browser(create_app(workspace))
    person.post("/login", data={"token": workspace.token()})
    data = {"form_token": form_of(person, "/reviews/review-1"), "answer": "continue", "why": "wanted"}
    done = person.post("/reviews/review-1/answer", data=data, headers={"Origin": HOST})
    assert (done.status_code, done.headers["location"]) == (303, "/reviews/review-1")
    assert "“wanted”" in person.get("/reviews/review-1").text
    again = person.post("/reviews/review-1/answer", data=data, headers={"Origin": HOST})
    assert again.status_code == 409 and "answered already" in again.text
    workspace.store.close()


def test_a_rollback_by_the_api_moves_the_endpoint(tmp_path: Path) -> None:
    from filled_store import fill

    workspace = fill(tmp_path)
    owner = Browser(create_app(workspace), {"Authorization": f"Bearer {workspace.token()}"})
    paused = owner.post("/api/v1/rollouts/rollout-2/pause", json={"why": "look"})
    assert paused.json()["phase"] == "paused"
    answer = owner.post("/api/v1/models/late-flights/rollback", json={"why": "slow"})
    assert answer.status_code == 200
    assert (answer.json()["before"], answer.json()["to"], answer.json()["rollout"]) == (3, 2, "rollout-2")
    assert owner.get("/api/v1/models/late-flights").json()["endpoint"]["shares"] == {"2": 1.0}
    assert audit.verify(workspace.store) is None
    workspace.store.close()
