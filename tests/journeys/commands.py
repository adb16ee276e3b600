"""The command line as a person has it: each command a process of its own, and `fairway serve` beside it."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fairway import clock
from fairway.store.workspace import Workspace
from fairway.testing.targets import HttpTarget

PATIENT = '[endpoint]\np99 = "10s"\ndeadline = "20s"\n'  # settings for a machine that does other work as well
FAIRWAY = [sys.executable, "-m", "fairway.cli.main"]
PLACES = ("FAIRWAY_STORE", "FAIRWAY_BLOBS")  # a journey may be taken on servers


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def fairway(root: Path, *arguments: str, token: str | None = None, timeout_s: float = 120) -> Done:
    """Run `fairway ...` in a folder, as the owner or as who holds `token`."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_") or name in PLACES
    }
    if token is not None:
        environment["FAIRWAY_TOKEN"] = token
    done = subprocess.run(
        [*FAIRWAY, *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=timeout_s,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[HttpTarget]:
    """`fairway serve` on free ports, ready; ended as by Ctrl-C, and it must end well."""
    with (root / "serve.log").open("w") as log:
        command = [*FAIRWAY, "serve", "--port", "0", "--console-port", "0"]
        server = subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
    try:
        with HttpTarget.wait_for(Workspace.find(root), server) as target:
            yield target
    finally:
        server.terminate()
        try:
            code = server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise
    assert code == 0, (root / "serve.log").read_text()


@dataclass
class Heard:
    """What a client was told: (seconds of `clock.elapsed()`, status, version or code)."""

    answers: list[tuple[float, int, Any]] = field(default_factory=list)

    def since(self, moment: float) -> list[tuple[int, Any]]:
        return [(status, what) for at, status, what in list(self.answers) if at >= moment]


@contextlib.contextmanager
def asking(target: HttpTarget, model: str, rows: Sequence[Mapping[str, Any]], *, token: str) -> Iterator[Heard]:
    """A client that asks all the time, some 20 times a second, while the block runs."""
    heard, stop = Heard(), threading.Event()

    def ask() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=target.predict_url, headers=headers, timeout=30) as client:
            while not stop.wait(0.05):
                try:
                    answer = client.post(f"/v1/models/{model}/predict", json={"rows": list(rows)})
                except httpx.TransportError as exc:
                    heard.answers.append((clock.elapsed(), 0, repr(exc)))
                    continue
                body = answer.json()
                what = body["outputs"][0]["version"] if answer.status_code == 200 else body["code"]
                heard.answers.append((clock.elapsed(), answer.status_code, what))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(60)
