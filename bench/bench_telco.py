"""telco-churn, unchanged: AUC of `new` + `train`; from an empty folder to the first answer."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
from common import FAIRWAY, need, run, scratch, table


def make_table(folder: Path) -> Path:
    target = folder / "telco.csv"
    with gzip.open(need("telco-churn/telco.csv.gz")) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return target


def journey(folder: Path) -> tuple[dict[str, float], dict]:
    """Seconds of each step, and what `train --json` said."""
    seconds = {}
    seconds["new"], _ = run([*FAIRWAY, "new", "churn", "--data", "telco.csv", "--target", "Churn", "--yes"], cwd=folder)
    project = folder / "churn"
    seconds["train"], out = run([*FAIRWAY, "train", "--json"], cwd=project)
    trained = json.loads(out)
    began = time.perf_counter()
    log = (folder / "serve.log").open("w")
    server = subprocess.Popen([*FAIRWAY, "serve", "--port", "0", "--console-port", "0"], cwd=project, stdout=log)
    try:
        state = project / ".fairway" / "serve.json"
        while not state.exists():
            time.sleep(0.02)
        url = json.loads(state.read_text())["predict"]
        while True:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        seconds["serve"] = time.perf_counter() - began
        seconds["deploy"], _ = run([*FAIRWAY, "deploy"], cwd=project)
        began = time.perf_counter()
        body = json.loads((project / "tests" / "row.json").read_text())
        token = (project / ".fairway" / "token").read_text().strip()
        answer = httpx.post(f"{url}/v1/models/churn/predict", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        seconds["first 200"] = time.perf_counter() - began
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        log.close()
    return seconds, trained


def main() -> None:
    folder = scratch()
    make_table(folder)
    journey(folder)  # warm: caches of the system, compiled bytecode
    shutil.rmtree(folder / "churn")
    seconds, trained = journey(folder)
    again, _ = run([*FAIRWAY, "train"], cwd=folder / "churn")
    auc = float(re.search(r'"auc":\s*\{?[^}]*?(0\.\d+)', json.dumps(trained))[1])
    lines = len((folder / "churn" / "model.py").read_text().splitlines())
    table(
        "telco-churn, unchanged, warm",
        [
            ("AUC on rows held back", f"{auc:.4f}", ">= 0.83"),
            ("lines of model.py", str(lines), "<= 30"),
            *((name, f"{s:.2f} s", "") for name, s in seconds.items()),
            ("empty folder to first 200", f"{sum(seconds.values()):.2f} s", "< 15 s"),
            ("train again, nothing changed", f"{again:.2f} s", "<= 0.6 s"),
        ],
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
