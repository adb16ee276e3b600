"""30 rules on 1,000,000 rows: the contract, Polars by hand, Pandera and Great Expectations, on one file in one run.

The peers get a virtual environment of their own under .cache/peers/contract, made once by pip.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from common import PYTHON, median, run, scratch, table

from fairway.contract.columns import Column, Contract, Rule
from fairway.contract.examine import examine
from fairway.contract.rules import compile_rules, count_broken

ROWS = int(os.environ.get("FAIRWAY_BENCH_ROWS", "1000000"))
REPEATS = 5
PEERS = Path(__file__).resolve().parents[1] / ".cache" / "peers" / "contract"
PACKAGES = ("great_expectations", "pandera[polars]", "pandas", "polars", "pyarrow")
NUMBERS = tuple(f"n{i}" for i in range(6))
KINDS = ("basic", "plus", "pro", "team")
PATTERN = "[A-Z]{2}[0-9]{7}"


def make_table(path: Path) -> None:
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    noise = (place * 2_654_435_761 % 1_000_003).cast(pl.Float64) / 1_000_003
    frame = pl.DataFrame({"row": pl.int_range(ROWS, eager=True)})
    frame = frame.select(
        code="AB" + place.cast(pl.String).str.zfill(7),
        at=pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(seconds=place),
        kind=pl.lit(list(KINDS)).list.get(place % 4),
        age=place % 90,
        count=place % 1000,
        low=noise,
        high=noise + 1.0,
        **{name: (noise * (i + 1) * 10) for i, name in enumerate(NUMBERS)},
    )
    frame.write_parquet(path)


def contract() -> Contract:
    """30 rules: 13 nulls, 9 ranges, a category's list, pattern, length, unique, rising time, 3 across columns."""
    columns = (
        Column(name="code", type="string", role="entity", pattern=PATTERN, unique=True, max_length=20),
        Column(name="at", type="datetime", role="at", monotonic="rises"),
        Column(name="kind", type="category", values=KINDS, unseen="reject"),
        Column(name="age", type="int", range=(0, 120)),
        Column(name="count", type="int", range=(0, 1000)),
        Column(name="low", type="float", range=(0.0, 1.0)),
        Column(name="high", type="float"),
        *(Column(name=name, type="float", range=(0.0, 10.0 * (i + 1))) for i, name in enumerate(NUMBERS)),
    )
    rules = (
        Rule(name="order", check="high >= low"),
        Rule(name="grown", check="age >= 0", when="count > 500"),
        Rule(name="known", check='kind != "pro"', when="age > 89"),
    )
    return Contract(columns=columns, rules=rules)


def by_hand(frame: pl.DataFrame) -> list[int]:
    """What a person would write: one select, one count per rule."""
    c = pl.col
    counts = [c(name).null_count() for name in frame.columns]
    counts += [(~c("code").str.contains(f"^(?:{PATTERN})$")).sum(), (c("code").str.len_chars() > 20).sum()]
    counts += [(c("code").is_duplicated() & c("code").is_not_null()).sum()]
    counts += [(c("at") < c("at").forward_fill().shift(1)).sum(), (~c("kind").is_in(list(KINDS))).sum()]
    counts += [((c(n) < 0) | (c(n) > top)).sum() for n, top in (("age", 120), ("count", 1000))]
    counts += [((c(n) < 0) | (c(n) > 10.0 * (i + 1))).sum() for i, n in enumerate(NUMBERS)]
    counts += [((c("low") < 0) | (c("low") > 1)).sum()]
    counts += [(c("high") < c("low")).sum(), ((c("count") > 500) & (c("age") < 0)).sum()]
    counts += [((c("age") > 89) & (c("kind") == "pro")).sum()]
    return list(frame.select(e.alias(str(i)) for i, e in enumerate(counts)).row(0))


def seconds(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found)


PEER = """
import json, sys, time
kind, path, pattern = sys.argv[1:4]
kinds, numbers = sys.argv[4].split(","), sys.argv[5].split(",")
names = ["code", "at", "kind", "age", "count", "low", "high", *numbers]
def pandera():
    import polars as pl, pandera.polars as pa
    frame = pl.read_parquet(path)
    C, K = pa.Column, pa.Check
    columns = {"code": C(str, [K.str_matches("^" + pattern + "$"), K.str_length(max_value=20)], unique=True),
               "at": C(None, [K(lambda d: d.lazyframe.select(pl.col("at") >= pl.col("at").shift(1).fill_null(pl.col("at"))))]),
               "kind": C(str, K.isin(kinds)), "age": C(int, K.in_range(0, 120)), "count": C(int, K.in_range(0, 1000)),
               "low": C(float, K.in_range(0, 1)), "high": C(float)}
    columns |= {n: C(float, K.in_range(0, 10.0 * (i + 1))) for i, n in enumerate(numbers)}
    table = [K(lambda d: d.lazyframe.select(pl.col("high") >= pl.col("low"))),
             K(lambda d: d.lazyframe.select((pl.col("count") <= 500) | (pl.col("age") >= 0))),
             K(lambda d: d.lazyframe.select((pl.col("age") <= 89) | (pl.col("kind") != "pro")))]
    schema = pa.DataFrameSchema(columns, checks=table)
    def work():
        try:
            schema.validate(frame, lazy=True)
        except pa.errors.SchemaErrors as exc:
            raise SystemExit(str(exc)[:2000])
    return work
def gx():
    import pandas as pd, great_expectations as g
    frame = pd.read_parquet(path)
    context = g.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    E = g.expectations
    suite = g.ExpectationSuite(name="s", expectations=[E.ExpectColumnValuesToNotBeNull(column=n) for n in names] + [
        E.ExpectColumnValuesToMatchRegex(column="code", regex="^" + pattern + "$"),
        E.ExpectColumnValueLengthsToBeBetween(column="code", max_value=20),
        E.ExpectColumnValuesToBeUnique(column="code"),
        E.ExpectColumnValuesToBeInSet(column="kind", value_set=kinds),
        E.ExpectColumnValuesToBeBetween(column="age", min_value=0, max_value=120),
        E.ExpectColumnValuesToBeBetween(column="count", min_value=0, max_value=1000),
        E.ExpectColumnValuesToBeBetween(column="low", min_value=0, max_value=1),
        E.ExpectColumnPairValuesAToBeGreaterThanB(column_A="high", column_B="low", or_equal=True)] + [
        E.ExpectColumnValuesToBeBetween(column=n, min_value=0, max_value=10.0 * (i + 1)) for i, n in enumerate(numbers)])
    suite = context.suites.add(suite)
    check = context.validation_definitions.add(g.ValidationDefinition(name="v", data=batch, suite=suite))
    def work():
        result = check.run(batch_parameters={"dataframe": frame})
        if not result.success:
            raise SystemExit("GX: not all hold")
    print(len(suite.expectations), file=sys.stderr)
    return work
work = {"pandera": pandera, "gx": gx}[kind]()
work()
began = time.perf_counter(); work(); print("seconds", json.dumps(time.perf_counter() - began))
"""  # noqa: E501  (a script of the peers, as short as theirs)


def peer(kind: str, path: Path) -> float | None:
    """Seconds of one warm run; None where the peer can't be installed here."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        run([PYTHON, "-m", "venv", str(PEERS)])
        made = subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], capture_output=True, text=True)
        if made.returncode:
            print(f"  {kind}: can't be installed: {made.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
    arguments = [str(python), "-c", PEER, kind, str(path), PATTERN, ",".join(KINDS), ",".join(NUMBERS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("seconds ")]
    if done.returncode or not answers:
        print(f"  {kind}: {(done.stderr or done.stdout).strip()[-600:]}", file=sys.stderr)
        return None
    return float(json.loads(answers[-1].removeprefix("seconds ")))


def main() -> None:
    path = scratch() / "table.parquet"
    make_table(path)
    frame, held = pl.read_parquet(path), contract()
    rules = compile_rules(held.columns, held.rules)
    n = len(rules) + 1  # and the category's list, which typing it checks
    typed = examine(frame, held.columns, contract=held).frame
    hand = seconds(lambda: by_hand(frame))
    select = seconds(lambda: count_broken(typed, rules))
    whole = seconds(lambda: examine(frame, held.columns, contract=held))
    assert examine(frame, held.columns, contract=held).verdict == "pass" and not any(by_hand(frame))
    rows = [
        ("Polars by hand, one select", f"{hand * 1000:,.0f} ms", ""),
        ("the contract's select on typed columns", f"{select * 1000:,.0f} ms, {select / hand:.2f} x", "<= 1.5 x"),
        ("the contract with parsing and flags", f"{whole * 1000:,.0f} ms, {whole / hand:.2f} x", "<= 1.5 x"),
    ]
    for name, kind in (("Pandera (Polars, lazy)", "pandera"), ("Great Expectations (pandas)", "gx")):
        took = peer(kind, path)
        said = "not here" if took is None else f"{took * 1000:,.0f} ms, {took / whole:.1f} x the contract"
        rows.append((name, said, ""))
    table(f"{n} rules on {ROWS:,} rows, median of {REPEATS}", rows)


if __name__ == "__main__":
    main()
