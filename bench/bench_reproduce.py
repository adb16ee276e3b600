"""`fairway train --reproduce`: here, in its own environment built again by uv, and after a package has changed."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
from common import FAIRWAY, run, scratch, table

from fairway.path.rebuild import rebuild
from fairway.runtime.environment import environment

OTHER = ("msgspec", "0.19.0")  # a small package of which another version answers alike


def make_table(path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5_000, 6))
    y = np.where(x[:, 0] + x[:, 1] ** 2 + rng.normal(size=len(x)) > 1, "yes", "no")
    pl.DataFrame({f"x{i}": x[:, i] for i in range(6)} | {"y": y}).write_parquet(path)


def again(folder: Path, *more: str) -> tuple[float, str]:
    """Seconds, and how it ended with what it named."""
    seconds, out = run([*FAIRWAY, "train", "--reproduce", "small@1", "--json", *more], cwd=folder, check=False)
    found = json.loads(out)
    named = [f"{d['what']} {d['then']} -> {d['now']}" for d in found["differences"]]
    named += [note for note in found["notes"] if OTHER[0] in note]
    return seconds, ("identical" if found["identical"] else "differs") + (f"; {'; '.join(named)}" if named else "")


def main() -> None:
    folder = scratch()
    make_table(folder / "table.parquet")
    run([*FAIRWAY, "new", "small", "--data", "table.parquet", "--target", "y", "--yes"], cwd=folder)
    project = folder / "small"
    here, _ = run([*FAIRWAY, "train"], cwd=project)
    rows = [("train", f"{here:.1f} s", "")]
    for name, more in (("made again here", ()), ("in its environment, built again", ("--rebuild-environment",))):
        seconds, said = again(project, *more)
        rows.append((name, f"{said}, {seconds:.1f} s", "identical"))

    recorded = environment(project, ["numpy", "polars", "sklearn"])
    recorded["packages"] |= dict([OTHER])
    elsewhere = rebuild(folder / "elsewhere", recorded, {})
    shutil.rmtree(project / ".fairway")
    (project / ".fairway").mkdir()
    run([str(elsewhere.python), "-m", "fairway.cli.main", "train"], cwd=project)
    seconds, said = again(project)
    rows.append((f"trained with {OTHER[0]} {OTHER[1]}, made again here", f"{said}, {seconds:.1f} s", "named"))
    seconds, said = again(project, "--rebuild-environment")
    rows.append(("the same, in its environment", f"{said}, {seconds:.1f} s", "identical"))
    table(f"fairway train --reproduce, 5,000 x 6 (Python {sys.version.split()[0]})", rows)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
