"""The classes of training data that must stop, or be repaired as documented, before anything is learned from them.

Every case is drawn from its class with the seed below: another seed draws other rows, columns and values. What must
come out is the same. Through the real reader, contract and snapshot; what needs a training is in journeys/.
"""

import gzip
import io
import json
import os
import random
import resource
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairway.checks import sample
from fairway.checks.leaks import leak_suspect
from fairway.contract.columns import Column
from fairway.contract.infer import infer
from fairway.contract.result import as_html
from fairway.contract.table import apply
from fairway.contract.text import parse_contract, parse_settings
from fairway.data import delimited, source, source_files
from fairway.data.project import load_project
from fairway.data.snapshot import Snapshot, snapshot, source_events
from fairway.errors import ContractViolation, DataError, SettingsError
from fairway.path.quality import check_data

SEED = 20261121
DRAWS = 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)

SETTINGS = """format = 1
name = "churn"
task = "binary"
target = "left"
positive = "yes"
entity = "customer"
at = "at"
[data]
source = "FILE"
"""
CONTRACT = """format = 1
[columns.customer]
type = "string"
[columns.at]
type = "datetime"
[columns.tenure]
type = "int"
[columns.charges]
type = "float"
nulls = true
[columns.plan]
type = "category"
values = ["basic", "plus", "pro"]
nulls = true
[columns.left]
type = "category"
values = ["no", "yes"]
"""


def draws(n: int = DRAWS) -> list[int]:
    return [SEED + i for i in range(n)]


def table(rng: random.Random, rows: int = 40) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "customer": [f"c{i:05}" for i in range(rows)],
            "at": [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=rng.randint(0, 5000)) for _ in range(rows)],
            "tenure": [rng.randint(0, 72) for _ in range(rows)],
            "charges": [round(rng.uniform(20, 120), 2) for _ in range(rows)],
            "plan": [rng.choice(["basic", "plus", "pro"]) for _ in range(rows)],
            "left": ["yes" if i % 3 == 0 else "no" for i in range(rows)],
        }
    )


def csv(frame: pl.DataFrame) -> bytes:
    times = [n for n, t in frame.schema.items() if isinstance(t, pl.Datetime)]
    texts = frame.with_columns(pl.col(n).dt.to_string("%Y-%m-%dT%H:%M:%SZ") for n in times)
    return texts.write_csv().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


class Taker:
    """A project around the bytes of one file: its snapshot, or what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".fairway").mkdir()

    def project(self, data: bytes, file: str = "t.csv", *, settings: str = SETTINGS, contract: str = CONTRACT) -> Any:
        (self.folder / file).write_bytes(data)
        (self.folder / "fairway.toml").write_text(settings.replace("FILE", file))
        (self.folder / "contract.toml").write_text(contract)
        return load_project(self.folder)

    def take(self, *given: Any, **more: Any) -> Snapshot:
        return snapshot(self.project(*given, **more), now=NOW)

    def refused(self, *given: Any, **more: Any) -> str:
        with pytest.raises((DataError, SettingsError)) as caught:
            self.take(*given, **more)
        project = load_project(self.folder)
        assert not list(project.workspace.blobs), "nothing may be kept of a refused table"
        return str(caught.value)


@pytest.fixture
def taker(tmp_path: Path) -> Taker:
    return Taker(tmp_path)


def cells(frame: pl.DataFrame) -> list[list[str]]:
    return [line.split(",") for line in csv(frame).decode().splitlines()]


def joined(rows: list[list[str]]) -> bytes:
    return ("\n".join(",".join(row) for row in rows) + "\n").encode()


@pytest.mark.parametrize("seed", draws())
def test_1_damaged_files_are_named(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    whole, packed = parquet(table(rng)), gzip.compress(csv(table(rng)))
    cut = whole[: rng.randint(5, len(whole) - 1)]
    kinds: list[tuple[bytes, str]] = [
        (cut, "t.parquet"),
        (rng.randbytes(rng.randint(1, 200)), "t.parquet"),
        (b"", "t.parquet"),
        (packed[: rng.randint(12, len(packed) - 1)], "t.csv.gz"),
        (rng.randbytes(50), "t.csv.gz"),
    ]
    for data, file in kinds:
        assert file in taker.refused(data, file)


@pytest.mark.parametrize("seed", draws())
def test_2_a_text_among_numbers_is_named_and_never_made_text(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    rows = cells(table(rng))
    row, column = rng.randint(1, 40), rng.choice(["tenure", "charges"])
    text = rng.choice(["ten", "12 months", "1_000", "0x1F", "1e", "--3", "five", "12;5"])
    rows[row][rows[0].index(column)] = text
    said = taker.refused(joined(rows))
    assert f"t.csv, row {row}, column {column}" in said and f'"{text}"' in said


@pytest.mark.parametrize("seed", draws())
def test_2_new_refuses_it_too(seed: int) -> None:
    rng = random.Random(seed)
    values = [str(rng.randint(0, 9)) for _ in range(100)]
    row = rng.randrange(100)
    values[row] = "ten"
    frame = pl.DataFrame({"x": values, "left": ["yes", "no"] * 50})
    with pytest.raises(DataError, match=f"row {row + 1}, column x"):
        infer(frame, target="left", file="t.csv")


@pytest.mark.parametrize("seed", draws(4))
def test_3_encodings(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    plain = csv(table(rng))
    name = "".join(rng.choices("éüßñø", k=4))
    odd = plain.replace(b"c00003", name.encode())
    same = {taker.take(data).dataset for data in (plain, b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"))}
    assert len(same) == 1
    kept = taker.take(odd).frame["customer"].to_list()
    assert name in kept
    other = Taker(taker.folder / "other") if (taker.folder / "other").mkdir() is None else taker
    for encoding in ("latin-1", "utf-16", "utf-16-le"):
        assert "t.csv" in other.refused(odd.decode().encode(encoding))
    assert "t.csv" in other.refused(plain.replace(b",", rng.choice([b";", b"|", b"\t"])))


@pytest.mark.parametrize("seed", draws())
def test_4_ragged_rows_and_open_quotes_never_shift_columns(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    rows = cells(table(rng))
    line = rng.randint(2, 40)
    kind = rng.choice(["few", "many", "quote"])
    if kind == "few":
        rows[line - 1] = rows[line - 1][: rng.randint(1, 5)]
    elif kind == "many":
        rows[line - 1] += ["x"] * rng.randint(1, 3)
    else:
        rows[line - 1][rng.randrange(6)] = '"open'
    said = taker.refused(joined(rows))
    assert f"line {line}" in said


NAMES = ["a b", "😀", "__class__", "lambda", "select", "None", "naïve", "x.y", "a'b", "<b>", "=1+1", "ＡＢ", "{x}", "ﷺ"]


@pytest.mark.parametrize("seed", draws())
def test_5_odd_names_are_kept_exactly_and_duplicates_refused(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    name = rng.choice(NAMES) + rng.choice(string.ascii_letters)
    frame = table(rng)
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    contract = CONTRACT.replace("[columns.tenure]", f"[columns.{quoted}]")
    taken = taker.take(csv(frame.rename({"tenure": name})), contract=contract)
    assert name in taken.frame.columns and sorted(taken.frame[name]) == sorted(frame["tenure"])
    twice = Taker(taker.folder / "twice") if (taker.folder / "twice").mkdir() is None else taker
    rows = cells(frame)
    one, other = sorted(rng.sample(range(6), 2))
    rows[0][other] = rows[0][one]
    assert f'"{rows[0][one]}"' in twice.refused(joined(rows))


@pytest.mark.parametrize("seed", draws(4))
def test_6_all_null_and_constant_columns(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame = table(rng)
    required = rng.choice(["customer", "at", "tenure"])
    said = taker.refused(parquet(frame.with_columns(pl.lit(None).alias(required))), "t.parquet")
    assert f"column {required}" in said and "null" in said
    odd = frame.with_columns(charges=None, tenure=pl.lit(rng.randint(0, 9)))
    taken = taker.take(parquet(odd), "t.parquet")
    assert {"column charges is null in every row", "column tenure has the same value in every row"} <= set(
        taken.warnings
    )


@pytest.mark.parametrize("seed", draws(4))
def test_7_too_few_rows(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    lines = csv(table(rng)).splitlines(keepends=True)
    for data in (b"", b"\n\n", lines[0], lines[0].rstrip(), lines[0] + rng.choice(lines[1:])):
        said = taker.refused(data)
        assert "t.csv" in said and ("empty" in said or "row" in said)


@pytest.mark.parametrize("seed", draws(4))
def test_8_one_class_or_one_row_of_it(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame = table(rng, rows=rng.randint(30, 300))
    only = rng.choice(["yes", "no"])
    assert only in taker.refused(csv(frame.with_columns(left=pl.lit(only))))
    rare = rng.randrange(frame.height)
    other = "no" if only == "yes" else "yes"
    labels = [other if i == rare else only for i in range(frame.height)]
    assert f"{other} is the value of 1 row" in taker.refused(csv(frame.with_columns(left=pl.Series(labels))))


@pytest.mark.parametrize("seed", draws(4))
def test_9_a_leak_is_flagged_by_its_column(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    y = rng.integers(0, 2, n)
    name = str(rng.choice(["closed", "fee", "z"]))
    leak = y * float(rng.uniform(1, 9)) + rng.normal(0, 0.05, n) if seed % 2 else y.astype(float)
    frame = pl.DataFrame({"x": rng.normal(size=n), name: leak})
    columns = '[columns.x]\ntype = "float"\n[columns.' + name + ']\ntype = "float"\n[columns.left]\ntype = "category"\n'
    contract = parse_contract("format = 1\n" + columns + 'values = ["no", "yes"]\nrole = "target"\n')
    settings = parse_settings(SETTINGS.replace('entity = "customer"\nat = "at"\n', ""))
    result = leak_suspect(contract, settings, frame, y, None)
    assert result.verdict == "fail" and repr(name) in result.summary


@pytest.mark.parametrize("seed", draws(4))
def test_10_the_future_is_dropped_and_counted(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    late = set(rng.sample(range(40), rng.randint(1, 20)))
    frame = table(rng)
    at = [NOW + timedelta(days=rng.randint(1, 4000)) if i in late else t for i, t in enumerate(frame["at"])]
    taken = taker.take(parquet(frame.with_columns(at=pl.Series(at, dtype=pl.Datetime("us", "UTC")))), "t.parquet")
    assert taken.counts["future"] == len(late) and taken.rows == 40 - len(late)
    assert taken.frame["at"].max() <= NOW  # type: ignore[operator]


@pytest.mark.parametrize("seed", draws())
def test_11_times(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    rows = cells(table(rng))
    place, row = rows[0].index("at"), rng.randint(1, 40)
    mixed = [list(line) for line in rows]
    mixed[row][place] = "2025-02-03T04:05:06"
    assert "mixed" in taker.refused(joined(mixed)) and f"row {row}," in taker.refused(joined(mixed))
    for wrong in ("1735689600", "1735689600000", "03/02/2025", "2025-02-30T00:00:00Z", "yesterday"):
        bad = [list(line) for line in rows]
        bad[row][place] = wrong
        assert f"row {row}, column at" in taker.refused(joined(bad))
    seconds = table(rng).with_columns(pl.col("at").dt.epoch("s"))
    assert "column at" in taker.refused(parquet(seconds), "t.parquet")
    madrid = CONTRACT.replace('type = "datetime"', 'type = "datetime"\nzone = "Europe/Madrid"')
    naive = [list(line) for line in rows]
    for line in naive[1:]:
        line[place] = line[place].removesuffix("Z")
    naive[row][place] = "2025-03-30T02:30:00"  # clocks went from 2 to 3
    assert f"row {row}, column at" in taker.refused(joined(naive), contract=madrid)
    naive[row][place] = rng.choice(["1900-01-01T00:00:00", "2025-10-26T02:30:00"])
    taken = taker.take(joined(naive), contract=madrid)
    assert taken.frame.schema["at"] == pl.Datetime("us", "UTC") and taken.rows == 40


@pytest.mark.parametrize("seed", draws(1))
def test_12_one_column_and_ten_thousand(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(10_000)]
    frame = table(rng, rows=8).with_columns(pl.lit(rng.random()).alias(name) for name in names)
    contract = CONTRACT + "".join(f'[columns.{name}]\ntype = "float"\n' for name in names[:20])
    taken = taker.take(parquet(frame), "t.parquet", contract=contract)
    assert taken.frame.width == 26 and any("not used: n20" in w and "…" in w for w in taken.warnings)
    alone = Taker(taker.folder / "one") if (taker.folder / "one").mkdir() is None else taker
    assert "no such column" in alone.refused(parquet(frame.select("left")), "t.parquet")


@pytest.mark.parametrize("seed", draws())
def test_13_numbers(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame, row = table(rng), rng.randrange(40)
    big = 2**53 + rng.randrange(1, 2**60, 2)

    def with_value(name: str, value: Any, dtype: Any) -> bytes:
        values = frame[name].to_list()
        values[row] = value
        return parquet(frame.with_columns(pl.Series(name, values, dtype=dtype)))

    exact = taker.take(with_value("tenure", big, pl.Int64), "t.parquet").frame
    assert big in exact["tenure"].to_list()  # not through a float
    taken = taker.take(with_value("charges", float("nan"), pl.Float64), "t.parquet")
    assert taken.frame["charges"].null_count() == 1 and "column charges: 1 NaN became null" in taken.warnings
    assert 1e308 in taker.take(with_value("charges", 1e308, pl.Float64), "t.parquet").frame["charges"].to_list()
    zero = [taker.take(with_value("charges", z, pl.Float64), "t.parquet").dataset for z in (0.0, -0.0)]
    assert zero[0] == zero[1]
    fresh = Taker(taker.folder / "inf") if (taker.folder / "inf").mkdir() is None else taker
    for value in (float("inf"), float("-inf")):
        said = fresh.refused(with_value("charges", value, pl.Float64), "t.parquet")
        assert f"row {row + 1}, column charges" in said and "finite" in said
    assert f"row {row + 1}, column tenure" in fresh.refused(with_value("tenure", 1.5, pl.Float64), "t.parquet")
    assert "column tenure" in fresh.refused(with_value("tenure", 2**63, pl.UInt64), "t.parquet")
    strict = CONTRACT.replace("nulls = true\n[columns.plan]", "[columns.plan]")
    said = fresh.refused(with_value("charges", float("nan"), pl.Float64), "t.parquet", contract=strict)
    assert f"row {row + 1}, column charges: is null" in said


@pytest.mark.parametrize("seed", draws(4))
def test_14_copies_are_counted_and_kept_apart(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame = table(rng)
    copies = rng.randint(1, 30)
    more = pl.concat([frame, frame.head(copies)])
    taken = taker.take(parquet(more), "t.parquet")
    assert taken.counts["duplicates"] == copies and taken.rows == 40 + copies
    contract = load_project(taker.folder).contract
    assert sample.copies_apart(contract, frame.head(20), frame.tail(20), None).verdict != "fail"
    held = pl.concat([frame, table(rng, rows=400).tail(360).with_columns(tenure=pl.lit(999, pl.Int64))])
    losses = np.concatenate([np.zeros(40), np.ones(360)])  # only what was seen in training is right
    losses[40:200] = 0.0
    many = pl.concat([frame] * 5 + [held])
    found = sample.copies_apart(contract, frame, many, np.concatenate([np.zeros(200), losses]))
    assert found.verdict == "fail" and found.evidence["copies"] == 240


@pytest.mark.parametrize("seed", draws(4))
def test_15_order_does_not_count_and_types_do(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame = table(rng)
    names = list(frame.columns)
    before = taker.take(parquet(frame), "t.parquet").dataset
    rng.shuffle(names)
    assert taker.take(parquet(frame.select(names)), "t.parquet").dataset == before
    other = Taker(taker.folder / "types") if (taker.folder / "types").mkdir() is None else taker
    changed: dict[str, pl.Expr] = {
        "tenure": pl.col("tenure").cast(pl.Float64) + 0.5,
        "charges": pl.lit("much"),
        "at": pl.col("at").dt.epoch("ms"),
        "plan": pl.col("tenure").cast(pl.Float64),
    }
    for name, made in changed.items():
        assert f"column {name}" in other.refused(parquet(frame.with_columns(made.alias(name))), "t.parquet")


@pytest.mark.parametrize("seed", draws())
def test_16_categories_are_null_and_counted_never_stripped(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame = table(rng)
    odd = rng.choice(["Basic", "basic ", " pro", "PLUS", "platinum", "", "бasic"])
    rows = sorted(rng.sample(range(40), rng.randint(1, 9)))
    plan = [odd if i in rows else value for i, value in enumerate(frame["plan"])]
    changed = frame.with_columns(plan=pl.Series(plan))
    taken = taker.take(parquet(changed), "t.parquet")
    assert taken.flags == {"unseen:plan": len(rows)} and taken.frame["plan"].null_count() == len(rows)
    gone = frame.with_columns(plan=pl.lit("pro"))
    assert taker.take(parquet(gone), "t.parquet").frame.schema["plan"] == pl.Enum(["basic", "plus", "pro"])
    fresh = Taker(taker.folder / "reject") if (taker.folder / "reject").mkdir() is None else taker
    reject = CONTRACT.replace('["basic", "plus", "pro"]', '["basic", "plus", "pro"]\nunseen = "reject"')
    said = fresh.refused(parquet(changed), "t.parquet", contract=reject)
    assert f"row {rows[0] + 1}, column plan" in said and f'"{odd}"' in said
    assert "is no class of the target" in fresh.refused(
        parquet(frame.with_columns(left=pl.lit(rng.choice(["Yes", "no ", "maybe"])))), "t.parquet"
    )


@pytest.mark.parametrize("seed", draws())
def test_17_only_declared_tokens_and_marks(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    rows = cells(table(rng))
    row, place = rng.randint(1, 40), rows[0].index("charges")
    for text in ("NA", "n/a", "-", "null", "NaN", "1'000", '"1,234,567"', '"1,5"', "1 000", "$5"):
        bad = [list(line) for line in rows]
        bad[row][place] = text
        assert f"row {row}, column charges" in taker.refused(joined(bad))
    token = rng.choice(["NA", "n/a", "-", "?"])
    good = [list(line) for line in rows]
    good[row][place] = token
    declared = CONTRACT.replace('type = "float"', f'type = "float"\nnull_values = ["{token}"]')
    assert taker.take(joined(good), contract=declared).frame["charges"].null_count() == 1
    comma = [[*line[:place], f'"{line[place].replace(".", ",")}"', *line[place + 1 :]] for line in rows[1:]]
    marked = CONTRACT.replace('type = "float"', 'type = "float"\ndecimal = ","')
    got = taker.take(joined([rows[0], *comma]), contract=marked).frame["charges"]
    assert sorted(got) == sorted(float(line[place]) for line in rows[1:])


@pytest.mark.parametrize("seed", draws(12))
def test_18_a_table_replaced_while_it_is_read(taker: Taker, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed in every way that a file can change, before or after its rows were taken: never half of each."""
    rng = random.Random(seed)
    file = rng.choice(["t.csv", "t.csv.gz", "t.parquet", "t.jsonl"])
    made: dict[str, Callable[[pl.DataFrame], bytes]] = {
        "t.csv": csv, "t.csv.gz": lambda frame: gzip.compress(csv(frame)), "t.parquet": parquet,
        "t.jsonl": lambda frame: b"".join(
            json.dumps(row, default=lambda at: at.isoformat()).encode() + b"\n" for row in frame.to_dicts()
        ),
    }  # fmt: skip
    frame, path = table(rng), taker.folder / file
    written = made[file](frame)
    how, late = rng.choice(["in place", "replaced", "same size and time", "cut", "gone"]), rng.random() < 0.5
    read = source._read

    def change() -> None:
        times = path.stat()
        if how == "gone":
            path.unlink()
        elif how == "cut":
            path.write_bytes(written[: len(written) // 2])
        elif how == "in place":
            path.write_bytes(made[file](table(rng)))
        elif how == "replaced":
            (taker.folder / "new").write_bytes(made[file](frame))  # the same rows are another file
            (taker.folder / "new").replace(path)
        else:
            path.write_bytes(written[:-3] + bytes([written[-3] ^ 1]) + written[-2:])
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def slow(*given: Any) -> pl.DataFrame:
        if not late:
            change()
        found = read(*given)
        if late:
            change()
        return found

    monkeypatch.setattr(source, "_read", slow)
    said = taker.refused(written, file)
    assert file in said, (how, said)
    monkeypatch.setattr(source, "_read", read)
    assert taker.take(written, file).rows == 40


def grown() -> float:
    """MiB of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def says_rows(path: Path, rng: random.Random, *, columns: int, rows: int) -> None:
    """A Parquet file whose footer promises so many rows, and which holds none of them."""
    some = pl.DataFrame({f"x{i}": pl.repeat(rng.random(), 1_000_000, eager=True) for i in range(columns)})
    buffer = io.BytesIO()
    some.write_parquet(buffer, row_group_size=1_000_000)
    footer = pq.read_metadata(buffer)
    whole = pq.read_metadata(buffer)
    for _ in range(rows // 1_000_000 - 1):
        whole.append_row_groups(footer)
    whole.write_metadata_file(str(path))


@pytest.mark.parametrize("seed", draws(3))
def test_12_a_hundred_million_rows_are_refused_by_the_footer_alone(
    taker: Taker, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, before = random.Random(seed), grown()
    columns, rows = rng.randint(11, 14), 100_000_000
    says_rows(taker.folder / "t.parquet", rng, columns=columns, rows=rows)
    data = (taker.folder / "t.parquet").read_bytes()
    said = taker.refused(data, "t.parquet")
    assert len(data) < 2**20 and f"100,000,000 rows x {columns} columns" in said and "at most" in said
    # Equal numbers are nothing in a file. What they are in memory counts.
    few = rng.randint(1, 3)
    says_rows(taker.folder / "t.parquet", rng, columns=few, rows=rows)
    monkeypatch.setattr(source_files, "memory_limit", lambda: 2**29)
    said = taker.refused((taker.folder / "t.parquet").read_bytes(), "t.parquet")
    assert f"unpacks to {few * 8 * rows / 2**30:,.1f} GiB" in said
    assert grown() - before < 700


@pytest.mark.parametrize("seed", draws(4))
def test_19_a_bomb_stops_before_memory_does(taker: Taker, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file with more text in it than this machine has memory, as text and as codes of a dictionary."""
    rng, before = random.Random(seed), grown()
    size = rng.randint(20_000, 60_000)
    n = 2 * source_files.memory_limit() // size
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), [rng.choice("abc") * size])
    columns = {name: codes if name == "customer" else pa.array(np.zeros(n)) for name in table(rng).columns}
    as_codes = bool(seed % 2)
    pq.write_table(pa.table(columns), taker.folder / "t.parquet", compression="zstd", store_schema=as_codes)
    data = (taker.folder / "t.parquet").read_bytes()
    assert len(data) < 2**20
    said = taker.refused(data, "t.parquet")
    assert "GiB of text; at most" in said
    assert grown() - before < 1_000
    limit = rng.randint(2**20, 2**22)
    monkeypatch.setattr(delimited, "memory_limit", lambda: 4 * limit)
    assert "unpacks to more than" in taker.refused(gzip.compress(b"a,b\n" + b"0,0\n" * limit), "t.csv.gz")
    lines = gzip.compress(b"a\n" + b"1\n" * (limit // 3))
    assert "this machine has no memory for it" in taker.refused(lines, "t.csv.gz")


def test_19_a_dictionary_of_a_million_texts(taker: Taker) -> None:
    rng, before = random.Random(SEED), grown()
    n = 1_000_000
    frame = table(rng, rows=1000)
    many = pl.concat([frame] * (n // 1000)).with_columns(customer=pl.format("c{}", pl.int_range(n)))
    coded = many.with_columns(plan=pl.col("customer").cast(pl.Categorical))
    taken = taker.take(parquet(coded), "t.parquet")
    assert taken.flags == {"unseen:plan": n} and taken.frame["customer"].n_unique() == n
    assert grown() - before < 2_000


@pytest.mark.parametrize("seed", draws(1))
def test_19_a_text_beyond_its_limit_stops(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame, row = table(rng), rng.randrange(40)
    long = ["x" * 20_000 if i == row else name for i, name in enumerate(frame["customer"])]
    said = taker.refused(parquet(frame.with_columns(customer=pl.Series(long))), "t.parquet")
    assert f"row {row + 1}, column customer: a text is longer than max_length (10,000 characters)" in said


@pytest.mark.parametrize("seed", draws(4))
def test_20_formulas_and_markup_are_data_and_escaped(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    frame, row = table(rng), rng.randrange(40)
    odd = rng.choice(["=1+1", "@SUM(A1)", "<script>alert(1)</script>", '<img src="x" onerror="y">', "&lt;b&gt;"])
    names = [odd if i == row else name for i, name in enumerate(frame["customer"])]
    data = parquet(frame.with_columns(customer=pl.Series(names)))
    assert odd in taker.take(data, "t.parquet").frame["customer"].to_list()
    named = '[columns.customer]\ntype = "string"'
    strict = CONTRACT.replace(named, f'{named}\npattern = "c[0-9]+"')
    standing = check_data(taker.project(data, "t.parquet", contract=strict), now=NOW)
    page = as_html(standing.found, table=standing.table)
    assert standing.found.verdict == "fail" and "<script>" not in page and "<img" not in page
    (result,) = standing.found.broken
    assert result.broken == 1 and result.rows[0].row == row + 1 and odd in result.rows[0].values["customer"]


@pytest.mark.parametrize("seed", draws(4))
def test_21_a_target_in_another_unit_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.lognormal(3, 0.5, 600)
    champion = "m@1"
    same = sample.target_steady(rng.lognormal(3, 0.5, 600), before, (), champion, declared=False)
    moved = sample.target_steady(before * 1000, before, (), champion, declared=False)
    assert same.verdict == "pass" and moved.verdict == "fail"


SOURCE = '[sources.calls]\nat = "at"\nkey = "id"\npath = "calls.parquet"\n'
SOURCE_COLUMNS = """[sources.calls.columns.id]
type = "string"
[sources.calls.columns.customer]
type = "string"
[sources.calls.columns.at]
type = "datetime"
[sources.calls.columns.minutes]
type = "float"
"""


@pytest.mark.parametrize("seed", draws(4))
def test_22_an_empty_or_doubled_key_of_a_feature_table(taker: Taker, seed: int) -> None:
    rng = random.Random(seed)
    calls = pl.DataFrame(
        {
            "id": [f"k{i}" for i in range(20)],
            "customer": [f"c{i % 5:05}" for i in range(20)],
            "at": [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(20)],
            "minutes": [float(i) for i in range(20)],
        }
    )
    project = taker.project(csv(table(rng)), settings=SETTINGS + SOURCE, contract=CONTRACT + SOURCE_COLUMNS)

    def events(ids: list[str | None]) -> pl.DataFrame:
        calls.with_columns(id=pl.Series(ids, dtype=pl.String)).write_parquet(taker.folder / "calls.parquet")
        return source_events(project, "calls", now=NOW)

    ids: list[str | None] = list(calls["id"])
    assert events(ids).height == 20
    one, other = rng.sample(range(20), 2)
    doubled = list(ids)
    doubled[other] = ids[one]
    with pytest.raises(DataError, match=f"{ids[one]}.*key of more than one"):
        events(doubled)
    missing: list[str | None] = [None if i == one else k for i, k in enumerate(ids)]
    with pytest.raises(ContractViolation, match=f"row {one + 1}, column id: is null"):
        events(missing)


@pytest.mark.parametrize("seed", draws(30))
def test_whatever_a_table_holds_it_is_taken_or_refused_by_name(tmp_path: Path, seed: int) -> None:
    """Columns of drawn kinds by contracts of drawn types: a typed frame, or one sentence; never another exception."""
    rng = random.Random(seed)
    kinds: dict[str, Callable[[], Any]] = {
        "int": lambda: rng.randint(-(2**63), 2**63 - 1),
        "float": lambda: rng.choice([rng.random(), float("nan"), float("inf"), -0.0, 1e308]),
        "bool": lambda: rng.random() < 0.5,
        "text": lambda: "".join(rng.choices("aé1.,-TZ: \x00<", k=rng.randint(0, 6))),
        "list": lambda: [rng.random()] * rng.randint(0, 3),
        "bytes": lambda: rng.randbytes(rng.randint(0, 9)),
        "time": lambda: datetime(1900, 1, 1) + timedelta(seconds=rng.randint(0, 2**32)),
    }
    kind = rng.choice(list(kinds))
    frame = pl.DataFrame({"x": [None if rng.random() < 0.1 else kinds[kind]() for _ in range(20)]}, strict=False)
    column = rng.choice(
        [
            Column(name="x", type="int", nulls=True, range=(0, 9)),
            Column(name="x", type="float", unique=True),
            Column(name="x", type="bool"),
            Column(name="x", type="category", values=("a", "b"), unseen="reject"),
            Column(name="x", type="string", pattern="[a-z]+", nulls=True),
            Column(name="x", type="text", max_length=3),
            Column(name="x", type="datetime", zone="UTC", monotonic="rises"),
            Column(name="x", type="date", nulls=True),
            Column(name="x", type="vector", length=2, range=(0, 1)),
            Column(name="x", type="image", formats=("png", "webp"), nulls=True),
        ]
    )
    said = ""
    try:
        height = apply(frame, [column], file="t").frame.height
    except DataError as error:
        height, said = 20, str(error)
    assert height == 20 and (not said or said.startswith("t, row "))
