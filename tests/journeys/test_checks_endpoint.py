"""The staging test finds what a served endpoint does otherwise than its package."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faulty"))

import pack

from fairway.checks.endpoint import endpoint_test
from fairway.contract.request import compile_request
from fairway.errors import RequestError
from fairway.runtime.loader import LoadedModel, load

Change = Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packages")
    return {name: pack.build(make(), root / name).package for name, make in pack.HONEST.items()}


def answer(model: LoadedModel, body: bytes) -> tuple[int, dict[str, Any]]:
    """What a gateway answers: the real decoder and the real runtime, without the network."""
    events = None
    if b'"events":' in body:
        value = json.loads(body)
        events = [
            {source: {k: [r[k] for r in rows] for k in rows[0]} for source, rows in own.items() if rows}
            for own in value.pop("events")
        ]
        body = json.dumps(value).encode()
    try:
        decoded = compile_request(model.contract, model.settings).decode(body)
    except RequestError as error:
        return error.status, {"error": str(error), "code": error.code, "field": error.field, "request_id": "r"}
    windows = events if events is not None else [None] * decoded.n
    outputs = model.predict_columns(decoded.columns, [at or 0 for at in decoded.ats], windows).outputs.tolist()
    classes, task = model.manifest.classes, model.manifest.task

    def said(value: Any) -> dict[str, Any]:
        if task == "regression":
            return {"value": value}
        if task == "binary":
            return {"label": classes[value >= 0.5], "probability": {classes[1]: value}}
        return {"label": classes[value.index(max(value))], "probability": dict(zip(classes, value, strict=True))}

    return 200, {"outputs": [{"id": "p", "status": "ok"} | said(v) for v in outputs]}


def run(folder: Path, change: Change = lambda status, value: (status, value)) -> dict[str, tuple[str, str]]:
    model = load(folder)

    def call(path: str, body: bytes) -> tuple[int, bytes]:
        assert path == "/v1/models/churn.staging/predict"
        status, value = change(*answer(model, body))
        return status, json.dumps(value).encode()

    return {r.name: (r.verdict, r.summary) for r in endpoint_test(call, "churn.staging", folder, seed=1)}


@pytest.mark.parametrize("name", list(pack.HONEST))
def test_an_endpoint_that_serves_its_package_passes(packages: dict[str, Path], name: str) -> None:
    found = run(packages[name])
    assert {check: verdict for check, (verdict, _) in found.items()} == {
        "staging-heldout": "pass", "staging-extreme": "pass", "staging-latency": "pass",
    }, found  # fmt: skip


def shifted(status: int, value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    for output in value.get("outputs", []):
        output["probability"]["yes"] += 1e-7
    return status, value


def nameless(status: int, value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return status, value | {"field": None} if status != 200 else value


def broken(status: int, value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return (500, {"error": "internal"}) if status == 422 else (status, value)


def lax(status: int, value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return (200, {"outputs": [{"probability": {"yes": 0.5}}]}) if status == 422 else (status, value)


def infinite(status: int, value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    for output in value.get("outputs", []):
        output["probability"]["yes"] = float("nan")
    return status, value


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (shifted, "staging-heldout", "over HTTP"),
        (infinite, "staging-heldout", "over HTTP"),
        (infinite, "staging-extreme", "NaN"),
        (nameless, "staging-extreme", "naming the column"),
        (broken, "staging-extreme", "4xx"),
        (lambda status, value: (200, {"outputs": []}), "staging-extreme", "0 answers"),
        (lax, "staging-extreme", "must be refused"),
        (lambda status, value: (503, value), "staging-latency", "503"),
    ],
)
def test_an_endpoint_that_differs_fails_by_name(
    packages: dict[str, Path], change: Change, check: str, says: str
) -> None:
    verdict, summary = run(packages["binary"], change)[check]
    assert verdict == "fail" and says in summary, summary


def test_an_endpoint_that_cannot_be_reached_is_unknown(packages: dict[str, Path]) -> None:
    def call(path: str, body: bytes) -> tuple[int, bytes]:
        raise ConnectionRefusedError("nobody there")

    results = endpoint_test(call, "churn.staging", packages["binary"])
    assert {r.verdict for r in results} == {"unknown"}
