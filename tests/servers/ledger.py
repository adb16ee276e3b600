"""Clients that keep a ledger of every answer they received, and what the log must say about it afterwards."""

import contextlib
import json
import os
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
from running import Running, alive, row, wait_until

from fairway import clock
from fairway.data import log
from fairway.serve.spool import sealed_segments
from fairway.store.workspace import Workspace

REFUSALS = ("loading", "overloaded", "log_full")  # what a gateway may say while it comes up
MODULES = {
    "gateway": "fairway.process.gateway_main", "worker": "fairway.process.worker",
    "model": "fairway.serve.model_process",
}  # fmt: skip


@dataclass(frozen=True)
class Received:
    """One row of an answer. sent_at, received_at: `clock.elapsed()` seconds of the request around it."""

    version: int
    output: float
    sent_at: float
    received_at: float


@dataclass
class Ledger:
    """What the clients saw. Filled by many threads: every entry is one atomic operation.

    answers: by prediction id. requests: their first rows. broken: connections lost under way. failures: answers that no
    client should ever get. name: part of every request id, so that two ledgers never share one.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    answers: dict[str, Received] = field(default_factory=dict)
    requests: list[Received] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def clients(served: Running, ledger: Ledger, connections: int, **options: Any) -> Iterator[None]:
    """Load from `connections` clients while the block runs."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_load, args=(served, n, ledger, stop), kwargs=options) for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a client hangs"


def _load(
    served: Running, number: int, ledger: Ledger, stop: threading.Event, *, name: str = "small", pause_s: float = 0.0,
    same_row: bool = False,
) -> None:  # fmt: skip
    """Ask on one connection until told to stop. A request whose connection broke is sent again under its id.

    same_row: ask the same row always, so that the answer depends on the version alone.
    """
    client, count = served.new_client(), 0
    while not stop.is_set():
        count += 1
        rows = [row()] if same_row else [row(who=f"c{number}-{count}-{i}", size=count / 10) for i in range(2)]
        request = {"rows": rows, "request_id": f"{ledger.name}-{number}-{count}"}
        while True:
            sent = clock.elapsed()
            try:
                answer = client.post(f"/v1/models/{name}/predict", json=request)
            except httpx.TransportError as exc:
                ledger.broken.append(repr(exc))
                client.close()
                client = served.new_client()
                if stop.is_set():
                    break
                continue
            _enter(ledger, answer, sent, clock.elapsed())
            break
        if pause_s:
            stop.wait(pause_s)
    client.close()


def _enter(ledger: Ledger, answer: httpx.Response, sent: float, received: float) -> None:
    if answer.status_code != 200:
        code = str(answer.json().get("code"))
        (ledger.refused if code in REFUSALS else ledger.failures).append(f"{answer.status_code} {answer.text}")
        return
    for place, output in enumerate(answer.json()["outputs"]):
        entry = Received(output["version"], output["probability"]["yes"], sent, received)
        ledger.answers[output["id"]] = entry
        if place == 0:
            ledger.requests.append(entry)


@dataclass(frozen=True)
class Compared:
    """The ledger against the log. missing: answered but not logged; double: logged twice; other: with other values."""

    received: int
    logged: int
    missing: list[str]
    double: list[str]
    other: list[str]


def compare(workspace: Workspace, ledger: Ledger, *, name: str = "small") -> Compared:
    """Read the log back, as anyone could, once everything sealed is folded."""
    assert wait_until(lambda: not sealed_segments(workspace.dir("spool")), 60), "segments are left"
    found = log.predictions(workspace, name)
    counts = Counter(found["prediction_id"].to_list())
    answers: dict[str, Mapping[str, Any]] = dict(
        zip(found["prediction_id"].to_list(), map(json.loads, found["answers"].to_list()), strict=True)
    )
    return Compared(
        received=len(ledger.answers),
        logged=found.height,
        missing=[i for i in ledger.answers if i not in answers],
        double=[i for i, n in counts.items() if n > 1],
        other=[i for i, entry in ledger.answers.items() if i in answers and not _same(entry, answers[i])],
    )


def _same(entry: Received, logged: Mapping[str, Any]) -> bool:
    answer = logged.get(str(entry.version), {})
    return (answer.get("role"), answer.get("status"), answer.get("output")) == ("served", "ok", entry.output)


def kill_one(served: Running, who: str, rng: Random) -> None:
    """kill -9 of one of the supervisor's gateways or its worker; returns when it is gone."""
    pids = find_pids(served, who)
    pid = rng.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not alive(pid), 10)


def find_pids(served: Running, who: str) -> list[int]:
    """Process ids of the supervisor's children of a kind; waits for one that is just being started again."""
    found: list[int] = []

    def look() -> bool:
        found.clear()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if MODULES[who].encode() in words and str(served.process.pid).encode() in words:
                    found.append(int(folder.name))
        return bool(found)

    assert wait_until(look, 30), f"no {who}"
    return sorted(found)
