"""The command line and the console against a workspace that is really served: processes, sockets, HTTP."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

FAIRWAY = [sys.executable, "-m", "fairway.cli.main"]
LIMIT_S = 120


def run(*arguments: str, at: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FAIRWAY, *arguments], cwd=at, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "FAIRWAY_TOKEN": ""},
    )  # fmt: skip
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done


def customers(path: Path) -> None:
    draw, lines = random.Random(7), ["customer,months,plan,left"]
    for number in range(3000):
        months, plan = draw.randint(0, 60), draw.choice(["basic", "plus", "team"])
        left = "yes" if draw.random() < 0.7 - months / 90 - 0.1 * (plan == "plus") else "no"
        lines.append(f"c-{number},{months},{plan},{left}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A project made by `new` and `train`, and `fairway serve` beside it."""
    root = Path(tmp_path_factory.mktemp("served"))
    customers(root / "customers.csv")
    run("new", "leavers", "--data", "customers.csv", "--target", "left", "--label-delay", "1d", "--yes", at=root)
    project = root / "leavers"
    trained = run("train", at=project)
    assert "leavers@1 may be deployed" in trained.stdout and "snapshot" in trained.stderr
    server = subprocess.Popen(
        [*FAIRWAY, "serve", "--port", "0", "--console-port", "0"], cwd=project, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield project, wait_ready(project, server)
    finally:
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
    assert server.returncode == 0 and "Traceback" not in err
    assert "pages, /docs http://127.0.0.1:" in out


def wait_ready(project: Path, server: subprocess.Popen[str]) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            where: dict[str, Any] = json.loads((project / ".fairway" / "serve.json").read_text())
            urls = (f"{where['predict']}/readyz", f"{where['console']}/healthz")
            if all(httpx.get(url, timeout=5).status_code == 200 for url in urls):
                return where
        except (OSError, ValueError, httpx.TransportError):
            pass  # not there yet
        time.sleep(0.1)
    raise AssertionError(f"not ready; exit code {server.poll()}")


def test_from_deploy_to_rollback(served: tuple[Path, dict[str, Any]]) -> None:
    project, where = served
    token = (project / ".fairway" / "token").read_text().strip()
    bearer = {"Authorization": f"Bearer {token}"}
    row = json.loads((project / "tests" / "row.json").read_text())

    early = httpx.post(f"{where['predict']}/v1/models/leavers/predict", headers=bearer, json=row, timeout=10)
    assert early.status_code in (404, 503)
    dry = run("deploy", "--dry-run", "--json", at=project)
    assert json.loads(dry.stdout)["outcome"] == "dry run"
    deployed = run("deploy", at=project)
    assert "200 held-out rows" in deployed.stdout and "leavers@1 is the champion." in deployed.stdout
    answer = httpx.post(f"{where['predict']}/v1/models/leavers/predict", headers=bearer, json=row, timeout=10)
    assert answer.status_code == 200 and answer.json()["outputs"][0]["version"] == 1

    assert run("deploy", "leavers@1", at=project, code=1).stderr.strip() == "leavers@1 is the champion already"
    code = project / "model.py"
    before = code.read_text()
    code.write_text(before + "\nX = 1\n")
    changed = run("deploy", at=project, code=2)
    assert "model.py has changed since leavers@1 was trained" in changed.stderr
    code.write_text(before)

    status = json.loads(run("status", "--json", at=project).stdout)
    assert status["models"][0]["live"] == 1 and status["serving"]["console"] == where["console"]
    api = httpx.get(f"{where['console']}/api/v1/models/leavers", headers=bearer, timeout=10).json()
    assert api["endpoint"]["shares"] == {"1": 1.0}

    back = run("rollback", "--why", "a test", "--json", at=project)
    moved = json.loads(back.stdout)
    assert (moved["before"], moved["to"], moved["gateways"]) == (1, None, 2)
    gone = httpx.post(f"{where['predict']}/v1/models/leavers/predict", headers=bearer, json=row, timeout=10)
    assert (gone.status_code, gone.json()["code"]) == (503, "no_champion")


def test_checks_are_repeated_by_name(served: tuple[Path, dict[str, Any]]) -> None:
    project, _ = served
    said = run("check", "leavers@1", "--only", "row-wise-features", "--json", at=project)
    assert [check["name"] for check in json.loads(said.stdout)["checks"]] == ["row-wise-features"]
    whole = run("check", at=project)
    assert "Nothing was registered." in whole.stdout
    assert json.loads(run("show", "versions", "--json", at=project).stdout)[0]["version"] == 1
    assert "no check is named nonsense" in run("check", "--only", "nonsense", at=project, code=2).stderr


def test_model_code_that_fails_is_one_line_and_a_run(served: tuple[Path, dict[str, Any]]) -> None:
    project, _ = served
    code = project / "model.py"
    before = code.read_text()
    code.write_text(before.replace("def train(", "def broken(", 1))
    try:
        said = run("train", at=project, code=1)
    finally:
        code.write_text(before)
    assert "Traceback" not in said.stderr
    assert "failed after" in said.stderr and "--log" in said.stderr
    runs = json.loads(run("show", "runs", "--json", at=project).stdout)
    assert runs[0]["status"] == "failed"
    assert run("show", runs[0]["run"], "--log", at=project).stdout.strip()


def test_the_console_over_http(served: tuple[Path, dict[str, Any]]) -> None:
    project, where = served
    token = (project / ".fairway" / "token").read_text().strip()
    with httpx.Client(base_url=where["console"], timeout=10) as person:
        first = person.get("/", headers={"Accept": "text/html"})
        assert (first.status_code, first.headers["location"]) == (303, "/login?next=/")
        entered = person.post("/login", data={"token": token, "next": "/models/leavers"}, follow_redirects=True)
        assert entered.status_code == 200 and "leavers" in entered.text
        runs = person.get("/api/v1/runs").json()
        done = next(run for run in runs if run["version"] == "leavers@1" and run["status"] == "done")
        assert "<svg" in person.get(f"/runs/{done['run']}/report").text
        assert person.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert person.post("/api/v1/clock", json={"to": "2030-01-01T00:00:00Z"}).json()["code"] == "real_clock"
