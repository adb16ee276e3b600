"""The tutorial's blocks, run as a reader would, in one shell with real processes; what they print is what it shows."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import PATIENT

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(?P<kind>sh|text)(?: exit=(?P<code>\d))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE, HERE = "fairway serve >", "localhost:8080"
LIMIT_S = 150

# Ports are taken by others here, so any will do; a reader sees by the log when it serves.
WAIT = """
for _ in $(seq 300); do [ -f .fairway/serve.json ] && break; sleep 0.1; done
PREDICT=$(python -c 'import json; print(json.load(open(".fairway/serve.json"))["predict"])')
"""
START = """
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
"""


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    code: int = 0


def blocks(page: Path) -> list[Block]:
    return [Block(m["kind"], m["text"], int(m["code"] or 0)) for m in BLOCK.finditer(page.read_text())]


def script(shown: list[Block], folder: Path) -> str:
    """One script of all blocks: each writes what it says to N.out, its exit code to N.code; a surprise ends it."""
    parts = [START]
    for number, block in enumerate(shown):
        if block.kind != "sh":
            continue
        text = block.text.replace(SERVE, "fairway serve --port 0 --console-port 0 >").replace(HERE, "$PREDICT")
        parts.append(f"{{\nset -e\n{text}\n}} > {folder}/{number}.out 2>&1" if not block.code else
                     f"set +e\n{{\n{text}\n}} > {folder}/{number}.out 2>&1")  # fmt: skip
        parts.append(f"code=$?; echo $code > {folder}/{number}.code; [ $code = {block.code} ] || exit 1")
        if "fairway new" in block.text:
            parts.append(f"printf '%s' '{PATIENT}' >> fairway.toml")
        if SERVE in block.text:
            parts.append(WAIT)
    return "\n".join(parts)


def plain(text: str) -> list[str]:
    """Lines without what differs from run to run: figures, ids and spaces."""
    text = re.sub(r"\b(run|data|r|p)-[0-9A-Za-z]+", r"\1-id", text)
    return [re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,]*", "0", line)).strip() for line in text.splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs bash and curl")
def test_the_tutorial_does_what_it_shows(tmp_path: Path) -> None:
    shown, out = blocks(DOCS / "tutorial.md"), tmp_path / "out"
    out.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("FAIRWAY_TOKEN", None)
    shell = subprocess.Popen(
        ["bash", "-c", script(shown, out)], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        shell.wait(LIMIT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)  # also what it left in the background
    said = ""
    for number, block in enumerate(shown):
        if block.kind == "sh":
            path, code = out / f"{number}.out", out / f"{number}.code"
            said = path.read_text() if path.exists() else ""
            assert code.exists() and int(code.read_text()) == block.code, f"{block.text}\n{said}"
        else:
            lines = "\n".join(plain(said))
            missing = [line for line in plain(block.text) if line not in lines]
            assert not missing, f"{said}\nhas nothing like {missing}"
    assert not list(tmp_path.glob("*/.fairway/serve.json"))  # it has stopped, and left nothing running
