"""The real processes: start, readiness, swaps, access, limits, deaths and the end."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from running import Running, alive, ids, row, running, wait_until
from small_model import desire, make_package, register, served

from fairway.data import log
from fairway.serve.spool import sealed_segments
from fairway.store import tokens
from fairway.store.gateways import is_served, wait_active
from fairway.store.workspace import Workspace

SWAPS = 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    root = tmp_path_factory.mktemp("serving")
    made = Workspace.create(root / "ws")
    register(made, make_package(root / "v1"), 1)
    register(made, make_package(root / "v2", leaf=3), 2)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def up(workspace: Workspace) -> Iterator[Running]:
    with running(workspace) as it:
        it.ready()  # also while no model has a champion
        desire(workspace, epoch=1, **served(1))
        assert wait_active(workspace, "small", 1) == []
        yield it


def epoch(workspace: Workspace) -> int:
    with workspace.store.read() as tx:
        return int(tx.exec_driver_sql("select max(epoch) from endpoint where endpoint = 'small'").scalar() or 0)


def test_gateways_report_what_is_active(up: Running, workspace: Workspace) -> None:
    rows = up.gateway_rows()
    assert [r["gateway"] for r in rows] == ["g1", "g2"]
    assert all(r["active"] == {"small": epoch(workspace)} for r in rows)
    assert is_served(workspace) == {
        "predict": up.url, "console": up.console_url, "pid": up.process.pid, "virtual_clock": None,
    }  # fmt: skip


def test_only_a_token_with_the_role_gets_in(up: Running, workspace: Workspace) -> None:
    weak = tokens.create(workspace.store, name="labels", roles=["feedback"], actor="test")
    strong = tokens.create(workspace.store, name="caller", roles=["predict"], actor="test")
    path = f"{up.url}/v1/models/small/predict"

    def status(token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.post(path, json={"rows": [row()]}, headers=headers).status_code

    assert status(None) == 401 and status("fw_wrong") == 401
    assert wait_until(lambda: status(strong) == 200, 5)  # the supervisor hands new tokens over
    assert status(weak) == 403
    assert httpx.get(f"{up.url}/healthz").status_code == 200
    assert httpx.get(f"{up.url}/metrics").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 400, "bad_host"),
        ({"Origin": "https://evil.example"}, 403, "bad_origin"),
        ({"Origin": "null"}, 403, "bad_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "bad_origin"),
        ({"Content-Type": "text/plain"}, 415, "content_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "content_type"),
        ({"Content-Encoding": "gzip"}, 415, "content_encoding"),
        ({"X-Request-Id": "x" * 200}, 422, "bad_request_id"),
        ({"X-Big": "x" * 20_000}, 431, "headers_too_large"),
    ],
)
def test_foreign_and_malformed_requests(up: Running, headers: dict[str, str], status: int, code: str) -> None:
    body = json.dumps({"rows": [row()]}).encode()
    sent = {"Content-Type": "application/json", **headers}
    answer = up.client.post("/v1/models/small/predict", content=body, headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"error", "code", "field", "request_id"}
    assert up.predict([row()]).status_code == 200


def test_a_body_that_is_too_large_is_cut(up: Running) -> None:
    answer = up.client.post("/v1/models/small/predict", content=b"x" * 11_000_000, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(12):
            yield b" " * 1_000_000

    with contextlib.suppress(httpx.TransportError):  # it may be cut while it still sends
        answer = up.client.post("/v1/models/small/predict", content=pieces(), headers=JSON)
        assert answer.status_code == 413
    assert up.predict([row()]).status_code == 200


JSON = {"Content-Type": "application/json"}


def raw(up: Running) -> socket.socket:
    where = urlsplit(up.url)
    return socket.create_connection((where.hostname, where.port), timeout=30)


def test_what_is_not_http_gets_json(up: Running) -> None:
    with raw(up) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400") and json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "not_http"


def test_slow_callers_are_cut_and_do_not_slow_others(up: Running) -> None:
    slow = [raw(up) for _ in range(50)]
    head = b"POST /v1/models/small/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for number, connection in enumerate(slow):
        connection.sendall(head if number % 2 else head + b"Content-Length: 100\r\n\r\n{")
    started = time.monotonic()
    assert up.predict([row()]).status_code == 200
    assert time.monotonic() - started < 2
    for connection in slow:
        answer = connection.recv(65536)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
        connection.close()
    assert 8 < time.monotonic() - started < 20


def test_swaps_fail_no_request_and_tear_no_answer(up: Running, workspace: Workspace) -> None:
    with up.new_client() as client:
        expected = {}
        for version in (1, 2):
            number = epoch(workspace) + 1
            desire(workspace, epoch=number, **served(version), previous=3 - version)
            assert wait_active(workspace, "small", number) == []
            expected[version] = client.post("/v1/models/small/predict", json={"rows": [row()]}).json()["outputs"][0]
    wanted = {v: o["probability"]["yes"] for v, o in expected.items()}
    assert wanted[1] != wanted[2]
    stop, failures, seen = threading.Event(), [], set()

    def load() -> None:
        with up.new_client() as client:
            while not stop.is_set():
                answer = client.post("/v1/models/small/predict", json={"rows": [row()]})
                if answer.status_code != 200:
                    failures.append(answer.text)
                    continue
                output = answer.json()["outputs"][0]
                seen.add(output["version"])
                if output["probability"]["yes"] != wanted[output["version"]]:
                    failures.append(answer.text)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for swap in range(SWAPS):
        number = epoch(workspace) + 1
        desire(workspace, epoch=number, **served(1 + swap % 2), previous=2 - swap % 2)
        assert wait_active(workspace, "small", number) == []
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == [] and seen == {1, 2}


def test_a_broken_version_leaves_the_old_one(up: Running, workspace: Workspace, tmp_path: Path) -> None:
    artifact = register(workspace, make_package(tmp_path / "v7", leaf=9), 7)
    blob = workspace.blobs.path(artifact)
    blob.write_bytes(blob.read_bytes() + b" ")
    before = up.predict([row()]).json()["outputs"][0]["version"]
    number = epoch(workspace) + 1
    desire(workspace, epoch=number, **served(7))
    assert wait_active(workspace, "small", number, timeout_s=2) == ["g1", "g2"]
    assert up.predict([row()]).json()["outputs"][0]["version"] == before
    assert wait_until(lambda: "was changed" in str(up.gateway_rows()[0]["report"]["errors"]), 5)
    assert up.client.get("/readyz").status_code == 200
    desire(workspace, epoch=number + 1, **served(before))
    assert wait_active(workspace, "small", number + 1) == []


def test_a_model_process_that_dies_costs_no_answer(up: Running) -> None:
    pids = children(up, "fairway.serve.model_process")
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert up.predict([row()]).status_code == 200


def test_answers_reach_the_log_of_both_gateways(up: Running, workspace: Workspace) -> None:
    wanted = set()
    for _ in range(20):
        with up.new_client() as client:  # a new connection may meet either gateway
            wanted |= set(ids(client.post("/v1/models/small/predict", json={"rows": [row()]})))
    feedback = {"rows": [{"id": identity, "label": "yes"} for identity in wanted]}
    assert up.client.post("/v1/feedback", json=feedback).json() == {"accepted": 20}

    def folded() -> bool:
        frame = log.predictions(workspace, "small").filter(pl_in("prediction_id", wanted))
        return frame.height == 20 and frame["label"].null_count() == 0

    assert wait_until(folded, 25)
    text = up.client.get("/metrics").text
    assert 'gateway="g1"' in text and 'gateway="g2"' in text
    assert set(log.predictions(workspace, "small")["gateway"]) == {"g1", "g2"}


def pl_in(column: str, values: set[str]):  # type: ignore[no-untyped-def]
    import polars as pl

    return pl.col(column).is_in(list(values))


def test_the_console_answers(up: Running) -> None:
    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{up.console_url}/healthz").status_code == 200
        return False

    assert wait_until(answers, 20)


def test_a_second_serve_is_refused(up: Running, workspace: Workspace) -> None:
    from fairway.errors import UsageError
    from fairway.process.supervisor import serve

    with pytest.raises(UsageError, match="another"):
        serve(workspace, port=0, console_port=0)


def children(up: Running, module: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                ours = b"--parent" in words and words[words.index(b"--parent") + 1] == str(up.process.pid).encode()
                if ours and (not module or module.encode() in words):
                    found.append(int(folder.name))
    return found


def test_the_end_is_graceful_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    register(workspace, make_package(tmp_path / "v1", before="import time; time.sleep(0.5 * (len(data) < 3))"), 1)
    desire(workspace, epoch=1, **served(1))
    with running(workspace) as up:
        up.ready()
        where = urlsplit(up.url)
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=30)
        headers = {**JSON, "Authorization": f"Bearer {workspace.token()}"}
        connection.request("POST", "/v1/models/small/predict", json.dumps({"rows": [row()]}).encode(), headers)
        time.sleep(0.2)
        pids = children(up, "")
        assert len(pids) >= 5
        up.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
        connection.close()
        assert up.stop() == 0
    assert not [pid for pid in pids if alive(pid)]
    assert is_served(workspace) is None and not list(workspace.sockets.glob("*.sock"))
    # The answer that was under way is sealed, and perhaps folded: the worker ends after the gateways.
    folded = log.predictions(workspace, "small").height
    assert folded + len(sealed_segments(workspace.dir("spool"))) == 1


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    register(workspace, make_package(tmp_path / "v1"), 1)
    desire(workspace, epoch=1, **served(1))
    with running(workspace) as up:
        up.ready()
        pids = children(up, "")
        assert len(pids) == 5
        up.process.kill()
        up.process.wait()
        assert wait_until(lambda: not any(map(alive, pids)), 10)
        assert is_served(workspace) is None
        up.client.close()
    with running(workspace) as up:  # and nothing stands in the way of the next start
        up.ready()
        assert up.predict([row()]).status_code == 200
