"""`fairway new --yes`, `fairway train`, unchanged, on seven tables: wall time, lines of model.py, metric and goal."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from common import FAIRWAY, SHARED, run, scratch
from sklearn.datasets import load_digits


@dataclass(frozen=True)
class Case:
    """make: writes the table into a folder, or gives its path. says: (figure of the evaluation, the goal)."""

    name: str
    target: str
    needs: str | None
    make: Callable[[Path], Path]
    says: Callable[[dict[str, Any], Path], tuple[str, str]]


def shared(name: str) -> Callable[[Path], Path]:
    return lambda folder: SHARED / name


def digits(folder: Path) -> Path:
    found = load_digits()
    pixels = {f"p{i:02d}": found.data[:, i].astype(int) for i in range(64)}
    path = folder / "digits.parquet"
    pl.DataFrame({**pixels, "digit": found.target}).write_parquet(path)
    return path


def digit_vectors(folder: Path) -> Path:
    found = load_digits()
    path = folder / "vectors.parquet"
    pl.DataFrame({"pixels": found.data.tolist(), "digit": found.target}).write_parquet(path)
    return path


def late_flights(folder: Path) -> Path:
    """What the target is made of is no input: arr_delay goes."""
    flights = pl.read_parquet(SHARED / "pnw-flights" / "flights.parquet")
    path = folder / "flights.parquet"
    flights.with_columns(late=pl.col("arr_delay") > 15).drop("arr_delay").write_parquet(path)
    return path


def value(evaluation: dict[str, Any], name: str) -> float:
    return float(evaluation["metrics"][name]["value"])


def rival(evaluation: dict[str, Any], name: str, of: str = "base rate") -> float:
    return float(evaluation["comparisons"][of]["metrics"][name]["value"])


def bike(evaluation: dict[str, Any], table: Path) -> tuple[str, str]:
    """Against the mean of the same hour on the same kind of day, which knows no lags either."""
    rows = pl.read_csv(table)
    held = evaluation["n"]
    past, test = rows.head(rows.height - held), rows.tail(held)
    mean = past.group_by("hr", "workingday").agg(mean=pl.col("cnt").mean())
    plain = test.join(mean, on=["hr", "workingday"], how="left")
    hourly = float((plain["cnt"] - plain["mean"]).abs().mean())  # type: ignore[arg-type]
    overall = float((test["cnt"] - past["cnt"].mean()).abs().mean())  # type: ignore[arg-type,operator]
    mae = value(evaluation, "mae")
    said = f"MAE {mae:.1f}: {1 - mae / overall:.0%} better than the mean, {1 - mae / hourly:.0%} than the hour's mean"
    return said, "40 % better than the lag-free mean"


def auc(goal: str) -> Callable[[dict[str, Any], Path], tuple[str, str]]:
    return lambda evaluation, table: (f"AUC {value(evaluation, 'auc'):.3f}", goal)


def air(evaluation: dict[str, Any], table: Path) -> tuple[str, str]:
    mae, base, line = value(evaluation, "mae"), rival(evaluation, "mae"), rival(evaluation, "mae", "linear regression")
    return f"MAE {mae:.2f} (base rate {base:.2f}, linear regression {line:.2f})", "better than both"


def spam(evaluation: dict[str, Any], table: Path) -> tuple[str, str]:
    return f"F1 {value(evaluation, 'f1'):.3f}", "F1 >= 0.9"


def accuracy(evaluation: dict[str, Any], table: Path) -> tuple[str, str]:
    return f"accuracy {value(evaluation, 'accuracy'):.3f}", "accuracy >= 0.96"


CASES = (
    Case("bike-sharing", "cnt", "bike-sharing/hour.csv.gz", shared("bike-sharing/hour.csv.gz"), bike),
    Case("elec2", "class", "elec2/elec2.parquet", shared("elec2/elec2.parquet"), auc("(a recurring concept)")),
    Case("valencia-air", "no2", "valencia-air/air_quality.csv.gz", shared("valencia-air/air_quality.csv.gz"), air),
    Case("sms-spam", "label", "sms-spam/sms.jsonl.gz", shared("sms-spam/sms.jsonl.gz"), spam),
    Case("digits", "digit", None, digits, accuracy),
    Case("digits-vector", "digit", None, digit_vectors, accuracy),
    Case("telco-churn", "Churn", "telco-churn/telco.csv.gz", shared("telco-churn/telco.csv.gz"), auc("AUC >= 0.83")),
    Case(
        "late-flights",
        "late",
        "pnw-flights/flights.parquet",
        late_flights,
        auc("0.645 with the schedule alone, another split"),
    ),
)


def measure(case: Case, folder: Path) -> list[str]:
    if case.needs is not None and not (SHARED / case.needs).exists():
        return [case.name, "", "", "", "skipped: the table is not there", ""]
    table = case.make(folder)
    made, _ = run([*FAIRWAY, "new", case.name, "--data", str(table), "--target", case.target, "--yes"], cwd=folder)
    project = folder / case.name
    took, out = run([*FAIRWAY, "train", "--json"], cwd=project, check=False)
    trained = json.loads(out)
    lines = len((project / "model.py").read_text().splitlines())
    found, goal = case.says(trained["metrics"], table)
    blocks = ", ".join(c["name"] for c in trained["checks"] if c["verdict"] in ("fail", "unknown"))
    verdict = trained["verdict"] + (f" ({blocks})" if blocks else "")
    return [case.name, f"{made:.1f} s", f"{took:.1f} s", f"{lines}", f"{found}   [{goal}]", verdict]


def main() -> None:
    folder = scratch()
    rows = [["table", "new", "train", "lines", "on held-out rows   [goal]", "gate"]]
    rows += [measure(case, folder) for case in CASES]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print("\nfairway new --yes, fairway train, unchanged (model.py: lines; held out: the newest fifth, else by hash)")
    for row in rows:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
