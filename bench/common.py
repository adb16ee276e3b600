"""What the benchmarks share: running commands, children's cost, and a table as the result."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PYTHON = sys.executable
FAIRWAY = [PYTHON, "-m", "fairway.cli.main"]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"  # beside the project; absent on most machines


def run(command: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> tuple[float, str]:
    """Wall seconds and standard output."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def cpu_of(command: Sequence[str], *, cwd: Path | None = None) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of a command with its children."""
    code = (
        "import resource, subprocess, sys, json, time; t = time.perf_counter();"
        "r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; w = time.perf_counter() - t;"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([w, u.ru_utime + u.ru_stime, u.ru_maxrss / 1024, r]))"
    )
    done = subprocess.run([PYTHON, "-c", code, *command], cwd=cwd, capture_output=True, text=True, check=True)
    wall, cpu, peak, status = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}: {done.stderr[-2000:]}")
    return wall, cpu, peak


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Print (what, measured, goal) rows."""
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in [("what", "measured", "goal"), *rows]) for i in range(3)]
    for row in [("what", "measured", "goal"), *rows]:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fairway-bench-"))


def need(name: str) -> Path:
    """A data set beside the project, or end with the reason."""
    path = SHARED / name
    if not path.exists():
        raise SystemExit(f"skipped: {path.name} is not there (the data sets lie beside the project, not in it)")
    return path
