"""A snapshot of 1,000,000 rows x 20 columns, then with 1 % more rows, beside a Delta table of the same.

.venv/bin/python bench/bench_snapshot.py                 about a minute; the peer's environment is made once, with pip
.venv/bin/python bench/bench_snapshot.py --smoke         50,000 rows, without the peer
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from common import PYTHON, median, run, scratch, table

RUNS = 3
PEER = Path(__file__).resolve().parents[1] / ".cache" / "peers" / "delta"

SETTINGS = """
format = 1
name = "wide"
task = "binary"
target = "y"
positive = "yes"
entity = "id"
at = "at"
[data]
source = "../table.parquet"
"""

OURS = """
import json, sys, time, resource
from pathlib import Path
from datetime import UTC, datetime
from fairway.data.project import load_project
from fairway.data.parts import load_dataset
from fairway.data.snapshot import snapshot
project = load_project(Path(sys.argv[1]))
project.workspace.store
def size():
    return sum(p.stat().st_size for p in (project.workspace.folder / "blobs").rglob("*") if p.is_file())
before = size()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began = time.perf_counter()
taken = snapshot(project, now=datetime(2030, 1, 1, tzinfo=UTC))
seconds = time.perf_counter() - began
made = size() - before
top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began = time.perf_counter()
load_dataset(project.workspace, taken.dataset)
print(json.dumps({"seconds": seconds, "bytes": made, "mb": top - peak, "load": time.perf_counter() - began,
                  "dataset": taken.dataset, "rows": taken.rows}))
"""

THEIRS = """
import json, shutil, sys, time
from pathlib import Path
import deltalake, polars as pl
table, more, place = map(Path, sys.argv[1:])
shutil.rmtree(place, ignore_errors=True)
def size():
    return sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) if place.exists() else 0
began = time.perf_counter()
deltalake.write_deltalake(str(place), pl.read_parquet(table).to_arrow())
seconds, first = time.perf_counter() - began, size()
began = time.perf_counter()
deltalake.write_deltalake(str(place), pl.read_parquet(more).to_arrow(), mode="append")
print(json.dumps({"seconds": seconds, "bytes": first, "append": time.perf_counter() - began, "copied": size() - first}))
"""


def rows_of(n: int, start: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    minute = (np.arange(n) + start) * 60_000_000 + 1_388_534_400_000_000
    columns: dict[str, object] = {
        "at": pl.Series(minute).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        "id": rng.integers(0, n // 5 + 1, n),
        **{f"x{i}": rng.normal(size=n).round(4) for i in range(11)},
        **{f"n{i}": rng.integers(0, 1000, n) for i in range(3)},
        **{f"c{i}": rng.choice([f"kind {k}" for k in range(8)], n) for i in range(2)},
        "s": pl.Series(rng.integers(0, 100_000, n)).cast(pl.String),
        "y": rng.choice(["no", "yes"], n),
    }
    return pl.DataFrame(columns)


def contract(frame: pl.DataFrame) -> str:
    kinds = {"Int64": "int", "Float64": "float"}
    text = "format = 1\n"
    for name, dtype in frame.schema.items():
        text += f'[columns.{name}]\ntype = "'
        if name in ("c0", "c1", "y"):
            text += f'category"\nvalues = {json.dumps(sorted(frame[name].unique()))}\n'
        else:
            text += f'{kinds.get(str(dtype), "string" if name == "s" else "datetime")}"\n'
    return text


def peer() -> str | None:
    """The Python of the peer's environment, or None with the reason said."""
    python = PEER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", "deltalake", "polars", "pyarrow"], check=False)
        if done.returncode:
            print("the peer could not be installed; it is left out")
            return None
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    n = 50_000 if smoke else 1_000_000
    folder = scratch()
    first, more = rows_of(n, 0, 0), rows_of(n // 100, n, 1)
    more.write_parquet(folder / "more.parquet")
    ours, grown = [], []
    for number in range(1 if smoke else RUNS):
        root = folder / f"wide-{number}"
        (root / ".fairway").mkdir(parents=True)
        (root / "fairway.toml").write_text(SETTINGS)
        (root / "contract.toml").write_text(contract(first))
        for frame, found in ((first, ours), (pl.concat([first, more]), grown)):
            frame.write_parquet(folder / "table.parquet")
            found.append(json.loads(run([PYTHON, "-c", OURS, str(root)])[1]))
    assert grown[0]["rows"] == n + n // 100
    assert len({found["dataset"] for found in ours}) == 1, "the same rows have the same id"
    first.write_parquet(folder / "table.parquet")
    python = None if smoke else peer()
    theirs = [
        json.loads(
            run([python, "-c", THEIRS, *(str(folder / f) for f in ("table.parquet", "more.parquet", "delta"))])[1]
        )
        for _ in range(RUNS if python else 0)
    ]

    def of(found: list[dict[str, float]], key: str) -> float:
        return median([one[key] for one in found])

    mb = 1024 * 1024
    rows = [
        ("snapshot: read, check, id, store", f"{of(ours, 'seconds'):.2f} s", "<= 1.5 s" if not smoke else ""),
        ("  stored", f"{of(ours, 'bytes') / mb:.1f} MB", ""),
        ("  memory more than before", f"{of(ours, 'mb'):.0f} MB", ""),
        ("  read back, verified", f"{of(ours, 'load'):.2f} s", ""),
        ("with 1 % more rows", f"{of(grown, 'seconds'):.2f} s", ""),
        (
            "  stored anew",
            f"{of(grown, 'bytes') / mb:.2f} MB = {of(grown, 'bytes') / of(ours, 'bytes'):.1%} of the first",
            "not the other 99 %",
        ),
    ]
    if theirs:
        ratio = of(ours, "seconds") / of(theirs, "seconds")
        rows += [
            (
                "Delta: read and write (no checks, no id)",
                f"{of(theirs, 'seconds'):.2f} s",
                f"ours / Delta: {ratio:.2f}",
            ),
            ("  stored", f"{of(theirs, 'bytes') / mb:.1f} MB", f"{of(ours, 'bytes') / of(theirs, 'bytes'):.2f}"),
            ("  append 1 %, rows given alone", f"{of(theirs, 'append'):.2f} s", ""),
            (
                "  stored anew",
                f"{of(theirs, 'copied') / mb:.2f} MB = {of(theirs, 'copied') / of(theirs, 'bytes'):.1%} of the first",
                f"{of(grown, 'bytes') / of(theirs, 'copied'):.2f}",
            ),
        ]
    table(f"{n:,} rows x 20 columns (medians of {len(ours)})", rows)


if __name__ == "__main__":
    main()
