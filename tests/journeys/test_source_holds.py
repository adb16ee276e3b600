"""A table that shrank, came empty or is late holds training on the command line, until its owner has answered."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import train_project
from commands import fairway

from fairway import clock

SETTINGS = train_project.SETTINGS.replace(
    'source = "data.csv"\n', 'source = "data.csv"\nowner = "eve@example.com"\nexpect_every = "3d"\n'
).replace('entity = "customer"\n', 'entity = "customer"\nat = "at"\n')
CONTRACT = train_project.CONTRACT.replace("[columns.tenure]", '[columns.at]\ntype = "datetime"\n[columns.tenure]')
MODEL = train_project.MODEL.replace('drop("customer")', 'drop("customer", "at")')


def write(root: Path, rows: int, *, days_ago: float) -> None:
    """The newest row is so many days old."""
    newest = clock.now() - timedelta(days=days_ago)
    at = [clock.iso(newest - timedelta(minutes=i)) for i in range(rows)]
    train_project.table(1500).head(rows).with_columns(at=pl.Series(at, dtype=pl.String)).write_csv(root / "data.csv")


def test_shrunk_empty_and_late(tmp_path: Path) -> None:
    root = train_project.write_project(tmp_path / "churn", settings=SETTINGS, contract=CONTRACT, model=MODEL)
    write(root, 1500, days_ago=1)
    assert fairway(root, "train").code == 0

    write(root, 900, days_ago=1)
    held = fairway(root, "train")
    assert held.code == 3 and "has shrunk: 900 rows of 1,500 are left (40.0 % fewer)" in held.err, held
    assert "eve@example.com is asked (review-1)" in held.err
    assert "review-1" in fairway(root, "status").out
    assert fairway(root, "answer", "review-1", "accept").code == 0
    trained = fairway(root, "train")
    assert trained.code == 0 and "900 rows" in trained.err + trained.out, trained

    write(root, 0, days_ago=1)
    empty = fairway(root, "train")
    assert empty.code == 3 and "is empty; it had 900 rows" in empty.err and "review-2" in empty.err
    write(root, 900, days_ago=3.1)
    late = fairway(root, "train")
    assert late.code == 3 and "is late: its newest row is 3.1 days old" in late.err

    versions = json.loads(fairway(root, "show", "versions", "--json").out)
    assert len(versions) == 2  # nothing was made of the tables that were held
