"""kill -9 of gateways and the worker under load: everything that was acknowledged is in the log, once."""

import contextlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import small_model
from running import Running, alive, row, running, wait_until

from fairway.data import log
from fairway.serve.spool import sealed_segments
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CONNECTIONS, KILLS = 16, 3


def test_what_was_acknowledged_is_logged_once(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(tmp_path / f"v{version}", leaf=leaf), version)
    rollout = {"champion": 1, "challenger": 2, "rollout": None, "shares": {"1": 0.5, "2": 0.5}, "shadows": [1, 2]}
    small_model.desire(workspace, epoch=1, **rollout)
    ledger: dict[str, tuple[int, float]] = {}
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        stop = threading.Event()
        threads = [threading.Thread(target=load, args=(served, n, ledger, stop)) for n in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        kill_some(served)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert len(ledger) > 100
        served.ready()
    # After a graceful stop all segments are sealed; what a killed gateway left was sealed by its next life.
    with running(workspace) as served:
        served.ready()
        assert wait_until(lambda: not sealed_segments(workspace.dir("spool")), 30)
        found = log.predictions(workspace, "small")
    logged = found["prediction_id"].to_list()
    assert len(logged) == len(set(logged))
    answers = dict(zip(logged, map(json.loads, found["answers"].to_list()), strict=True))
    assert [i for i in ledger if i not in answers] == []
    for identity, (version, output) in ledger.items():
        answer = answers[identity][str(version)]
        assert (answer["role"], answer["status"], answer["output"]) == ("served", "ok", output)


def load(served: Running, number: int, ledger: dict[str, tuple[int, float]], stop: threading.Event) -> None:
    """Ask on one connection until told to stop; every answer that arrives whole goes into the ledger."""
    client, count = served.new_client(), 0
    while not stop.is_set():
        count += 1
        rows = [row(who=f"c{number}-{count}-{i}", size=count / 10) for i in range(2)]
        try:
            answer = client.post("/v1/models/small/predict", json={"rows": rows})
        except httpx.TransportError:
            client.close()
            client = served.new_client()
            continue
        if answer.status_code == 200:
            for output in answer.json()["outputs"]:
                ledger[output["id"]] = output["version"], output["probability"]["yes"]
        else:
            assert answer.json()["code"] in ("loading", "overloaded", "log_full")
    client.close()


def kill_some(served: Running) -> None:
    rng = random.Random(7)
    for _ in range(KILLS):
        for who in ("gateway", "worker"):
            time.sleep(rng.uniform(0.3, 1.0))
            pid = random_pid(served, who, rng)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda pid=pid: not alive(pid), 10)  # type: ignore[misc]
    time.sleep(1.0)


def random_pid(served: Running, who: str, rng: random.Random) -> int:
    module = {"gateway": "fairway.process.gateway_main", "worker": "fairway.process.worker"}[who]
    found: list[int] = []

    def look() -> bool:
        found.clear()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    if module.encode() in words and str(served.process.pid).encode() in words:
                        found.append(int(folder.name))
        return bool(found)

    assert wait_until(look, 10), f"no {who}"
    return rng.choice(sorted(found))
