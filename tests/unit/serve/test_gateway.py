"""What a gateway answers, and that the log says the same."""

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from small_model import desire, served

from fairway import clock, fingerprint
from fairway.data import log
from fairway.errors import Unfinished
from fairway.process.embedded import EmbeddedServing

PREDICT = "/v1/models/small/predict"


def post(serving: EmbeddedServing, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = serving.call("POST", path, data)
    return status, json.loads(answer)


def row(**values: Any) -> dict[str, Any]:
    return {"who": "a", "size": 0.5, "color": "red", **values}


def answers(serving: EmbeddedServing) -> list[dict[str, Any]]:
    serving.settle()
    frame = log.predictions(serving.workspace, "small")
    return [json.loads(text) for text in frame["answers"].to_list()]


def test_an_answer_names_version_and_prediction_and_is_logged(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    status, said = post(serving, PREDICT, {"rows": [row(), row(color="mauve")], "request_id": "r1"})
    assert status == 200
    assert said["model"] == "small" and said["request_id"] == "r1"
    assert [o["id"] for o in said["outputs"]] == [
        fingerprint.prediction_id("default", "small", "r1", i) for i in (0, 1)
    ]
    serving.settle()
    frame = log.predictions(serving.workspace, "small").sort("row")
    for output, logged, flags in zip(said["outputs"], frame["answers"], frame["flags"], strict=True):
        assert output["version"] == 1 and output["label"] in ("yes", "no")
        assert json.loads(logged)["1"]["output"] == output["probability"]["yes"]
        assert flags.to_list() == (["unseen:color"] if output is said["outputs"][1] else [])


def test_who_can_not_be_answered_and_why(serving: EmbeddedServing) -> None:
    body = {"rows": [row()]}
    assert post(serving, PREDICT, body)[0] == 404
    desire(serving.workspace, epoch=1, state="no_champion")
    status, said = post(serving, PREDICT, body)
    assert (status, said["code"]) == (503, "no_champion")
    desire(serving.workspace, epoch=2, state="retired")
    status, said = post(serving, PREDICT, body)
    assert (status, said["code"]) == (410, "retired")
    assert set(said) == {"error", "code", "field", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", PREDICT, b"{", 400, "invalid_json"),
        ("POST", PREDICT, b'{"rows":[{"who":"a","size":"ten","color":"red"}]}', 422, "wrong_type"),
        ("POST", PREDICT, b'{"rows":[{"who":"a","size":1,"color":"red","left":"yes"}]}', 422, "unknown_field"),
        ("POST", PREDICT, b'{"rows":[]}', 422, None),
        ("POST", PREDICT, b'{"rows":[{"who":"a","size":1,"color":"red"}],"request_id":"a\\nb"}', 422, None),
        ("POST", PREDICT, b"x" * (10 * 1024 * 1024 + 1), 413, "body_too_large"),
        ("GET", PREDICT, b"", 405, "method"),
        ("POST", "/v1/models/small/../predict", b"{}", 404, "not_found"),
        ("GET", "/etc/passwd", b"", 404, "not_found"),
        ("POST", "/v1/sources/none", b'{"rows":[]}', 404, "source_not_found"),
        ("POST", "/v1/sources/trips", b'{"rows":[{"trip":"t"}]}', 422, "missing_field"),
        ("POST", "/v1/feedback", b'{"id":"p-1","label":NaN}', 422, None),
        ("POST", "/v1/feedback", b'{"id":"p-1","label":"perhaps"}', 422, "unknown_class"),
    ],
)
def test_a_callers_mistake_is_told_and_nothing_is_kept(
    serving: EmbeddedServing, method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    found, answer = serving.call(method, path, body)
    said = json.loads(answer)
    assert found == status and set(said) == {"error", "code", "field", "request_id"}
    assert code is None or said["code"] == code
    assert post(serving, PREDICT, {"rows": [row()]})[0] == 200
    assert len(answers(serving)) == 1


def test_a_retry_gets_the_stored_answer_and_another_body_a_conflict(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    body = {"rows": [row()], "request_id": "r1"}
    first = serving.call("POST", PREDICT, json.dumps(body).encode())
    desire(serving.workspace, epoch=2, **served(2))
    assert serving.call("POST", PREDICT, json.dumps(body).encode()) == first
    status, said = post(serving, PREDICT, {"rows": [row(size=0.75)], "request_id": "r1"})
    assert (status, said["code"], said["field"]) == (409, "conflict", "request_id")
    assert [list(a) for a in answers(serving)] == [["1"]]


def test_rows_are_assigned_by_entity_and_shadows_score_them_all(serving: EmbeddedServing) -> None:
    shares = {"champion": 1, "challenger": 2, "rollout": "rollout-1", "shares": {"1": 0.5, "2": 0.5}, "salt": "s"}
    desire(serving.workspace, epoch=1, **shares, shadows=[1, 2])
    rows = [row(who=f"w{i % 10}", size=i / 7) for i in range(40)]
    _, said = post(serving, PREDICT, {"rows": rows})
    versions = [o["version"] for o in said["outputs"]]
    assert versions == versions[:10] * 4 and set(versions) == {1, 2}
    serving.settle()
    frame = log.predictions(serving.workspace, "small")
    assert frame["arm"].to_list() == [versions[r] for r in frame["row"]]
    assert set(frame["propensity"]) == {0.5} and set(frame["rollout"]) == {"rollout-1"}
    for arm, text in zip(frame["arm"], frame["answers"], strict=True):
        both = json.loads(text)
        assert {v: a["role"] for v, a in both.items()} == {str(arm): "served", str(3 - arm): "shadow"}


def test_a_failing_shadow_does_not_hurt_and_a_bad_row_fails_alone(serving: EmbeddedServing) -> None:
    rollout = {"champion": 1, "challenger": 3, "rollout": "rollout-1", "shares": {"1": 1.0}, "shadows": [3]}
    desire(serving.workspace, epoch=1, **rollout)
    rows = [row(size=13.0), row(size=1.0)]
    status, said = post(serving, PREDICT, {"rows": rows})
    assert status == 200 and all("probability" in o for o in said["outputs"])
    assert sorted(a["3"]["status"] for a in answers(serving)) == ["model_error", "ok"]
    desire(serving.workspace, epoch=2, **served(3))
    status, said = post(serving, PREDICT, {"rows": rows})
    assert status == 200
    assert said["outputs"][0]["code"] == "model_error" and "thirteen" not in said["outputs"][0]["error"]
    assert "probability" in said["outputs"][1]


def test_a_view_sees_what_was_known_at_the_rows_time(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    now = clock.now()
    trips = [
        {"trip": "t1", "color": "red", "left_at": clock.iso(now - timedelta(minutes=1)), "km": 15.0},
        {"trip": "t2", "color": "blue", "left_at": clock.iso(now), "km": 99.0},
        {"trip": "t3", "color": "red", "left_at": clock.iso(now - timedelta(hours=3)), "km": 50.0},
        {"trip": "t4", "color": "red", "left_at": clock.iso(now + timedelta(hours=1)), "km": 70.0},
        {"trip": "t5", "color": "green", "left_at": clock.iso(now - timedelta(minutes=25)), "km": 7.0},
    ]
    assert post(serving, "/v1/sources/trips", {"rows": trips}) == (202, {"accepted": 5})
    assert post(serving, "/v1/sources/trips", {"rows": [trips[0] | {"km": 1.0}]}) == (202, {"accepted": 1})
    before = clock.iso(now - timedelta(seconds=30))
    earlier = clock.iso(now - timedelta(minutes=2))
    rows = [row(), row(color=None), row(asked_at=before), row(asked_at=earlier)]
    # t5 happened longer ago than a caller's word counts for: it is known since it came, and not before.
    rows += [row(color="green"), row(color="green", asked_at=before)]
    assert post(serving, PREDICT, {"rows": rows})[0] == 200
    serving.settle()
    frame = log.predictions(serving.workspace, "small").sort("row")
    assert frame["lk_recent_km"].to_list() == [15.0, None, 15.0, None, 7.0, None]
    events = log.source_events(serving.workspace, "trips", clock.now())
    assert events is not None and events["km"].sort().to_list() == [7.0, 15.0, 50.0, 70.0, 99.0]


def test_at_must_lie_near_now(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    far = clock.iso(clock.now() - timedelta(minutes=30))
    status, said = post(serving, PREDICT, {"rows": [row(), row(asked_at=far)]})
    assert (status, said["code"], said["field"]) == (422, "at_out_of_range", "rows[1].asked_at")


def test_staging_brings_its_own_events_and_time_and_leaves_no_log(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, name="small.staging", **served(1))
    path = "/v1/models/small.staging/predict"
    at = "2014-05-01T10:00:00Z"
    trip = {"trip": "t1", "color": "red", "left_at": "2014-05-01T09:30:00Z", "km": 15.0}
    body = {"rows": [row(asked_at=at), row(asked_at="2014-05-01T10:01:00Z")], "events": [{"trips": [trip]}, {}]}
    status, said = post(serving, path, body)
    assert status == 200
    first, second = (o["probability"]["yes"] for o in said["outputs"])
    assert first != second
    status, said = post(serving, path, {"rows": [row(asked_at=at)], "events": []})
    assert (status, said["field"]) == (422, "events")
    serving.settle()
    assert log.predictions(serving.workspace, "small.staging").height == 0


def test_a_version_that_can_not_be_loaded_changes_nothing(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    assert post(serving, PREDICT, {"rows": [row()]})[1]["outputs"][0]["version"] == 1
    desire(serving.workspace, epoch=2, **served(9))
    assert post(serving, PREDICT, {"rows": [row()]})[1]["outputs"][0]["version"] == 1
    with pytest.raises(Unfinished, match="epoch 2"):
        serving.wait("small", 2)


def test_feedback_is_counted_once_and_joins(serving: EmbeddedServing) -> None:
    desire(serving.workspace, epoch=1, **served(1))
    _, said = post(serving, PREDICT, {"rows": [row()]})
    identity = said["outputs"][0]["id"]
    for _ in range(2):
        assert post(serving, "/v1/feedback", {"id": identity, "label": "yes"}) == (202, {"accepted": 1})
    rows = [{"id": identity, "label": 3.5, "name": "revenue"}, {"id": "p-nobody", "label": "no"}]
    assert post(serving, "/v1/feedback", {"rows": rows}) == (202, {"accepted": 2})
    serving.settle()
    found = log.find(serving.workspace, identity)
    assert found["label"] == "yes" and [item["name"] for item in found["labels"]] == ["left", "revenue"]


def test_a_gateway_loads_nothing_heavy() -> None:
    heavy = ["polars", "sqlalchemy", "fastapi", "pandas", "sklearn", "scipy", "numpy"]
    code = f"import sys, fairway.process.gateway_main; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_openapi_names_every_route(serving: EmbeddedServing) -> None:
    status, body = serving.call("GET", "/openapi.json", b"")
    assert status == 200
    assert set(json.loads(body)["paths"]) == {
        "/v1/models/{name}/predict", "/v1/feedback", "/v1/sources/{name}", "/healthz", "/readyz", "/metrics",
        "/openapi.json",
    }  # fmt: skip
    status, text = serving.call("GET", "/metrics", b"")
    assert (status == 200 and b"# TYPE" in text) or text == b"\n"
