"""What `fairway train` costs over the same model code as a plain script: 50,000 rows x 20 columns."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from common import FAIRWAY, PYTHON, cpu_of, median, run, scratch, table

RUNS = 3

PLAIN = """
import json, sys
sys.path.insert(0, "wide")
import polars as pl, model
from fairway.contract.settings import Settings
data = pl.read_parquet("table.parquet")
words = [c for c in data.columns if data.schema[c] == pl.String and c != "y"]
kinds = {c: pl.Enum(sorted(data[c].drop_nulls().unique())) for c in words}
data = data.with_columns(pl.col(c).cast(kind) for c, kind in kinds.items())
part = data.head(40_000)
fitted = model.train(model.features(part.drop("y")), (part["y"] == "yes").cast(pl.Int8), {})
rest = data.tail(10_000)
print(fitted.predict_proba(model.features(rest.drop("y")))[:, 1].mean())
"""


def make_table(path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 50_000
    numbers = {f"x{i}": rng.normal(size=n) for i in range(14)}
    words = {f"c{i}": rng.choice(list("abcdefgh"), n) for i in range(5)}
    score = numbers["x0"] + 0.5 * numbers["x1"] ** 2 + (words["c0"] == "a") + rng.normal(size=n)
    y = np.where(score > 0.8, "yes", "no")
    pl.DataFrame({"row_id": np.arange(n), **numbers, **words, "y": y}).write_parquet(path)


def main() -> None:
    folder = scratch()
    make_table(folder / "table.parquet")
    run([*FAIRWAY, "new", "wide", "--data", "table.parquet", "--target", "y", "--yes"], cwd=folder)
    (folder / "plain.py").write_text(PLAIN)
    plain = [cpu_of([PYTHON, "plain.py"], cwd=folder) for _ in range(RUNS)]
    ours, again = [], []
    for _ in range(RUNS):
        shutil.rmtree(folder / "wide" / ".fairway")
        (folder / "wide" / ".fairway").mkdir()
        ours.append(cpu_of([*FAIRWAY, "train"], cwd=folder / "wide"))
        again.append(cpu_of([*FAIRWAY, "train"], cwd=folder / "wide"))
    table(
        f"fairway train, 50,000 x 20 (medians of {RUNS}); it also evaluates, checks, packages and reports",
        [
            ("plain script, wall", f"{median([p[0] for p in plain]):.2f} s", ""),
            ("fairway train, wall", f"{median([o[0] for o in ours]):.2f} s", ""),
            (
                "more than the script",
                f"{median([o[0] for o in ours]) - median([p[0] for p in plain]):.2f} s",
                "<= 0.8 s",
            ),
            ("plain script, largest process", f"{median([p[2] for p in plain]):.0f} MB", ""),
            (
                "more than the script",
                f"{median([o[2] for o in ours]) - median([p[2] for p in plain]):.0f} MB",
                "<= 80 MB",
            ),
            ("unchanged re-run", f"{median([a[0] for a in again]):.2f} s", "<= 0.6 s"),
        ],
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
