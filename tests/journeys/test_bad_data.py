"""Tables that can't be learned from, and settings that can't be read, through the command line: what it says, its exit
code, and that nothing is left of it. The many draws of each class are in unit/data and unit/contract."""

import gzip
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from commands import PATIENT, fairway, serving
from train_project import CONTRACT, MODEL, SETTINGS, table, write_project

from fairway import clock
from fairway.cli.main import call
from fairway.data import log
from fairway.data.project import load_project
from fairway.path.split import places
from fairway.store import schema
from fairway.store.workspace import Workspace

Run = Callable[..., tuple[int, str, str]]
TABLE = table(400)
CSV = TABLE.write_csv().encode()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in a folder: (exit code, stdout, stderr)."""

    def start(root: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(root)
        capsys.readouterr()
        code = call(list(arguments))
        return (code, *capsys.readouterr())

    return start


def project(
    tmp_path: Path, data: bytes | pl.DataFrame, file: str = "data.csv", settings: str = SETTINGS, **files: Any
) -> Path:
    root = write_project(tmp_path / "churn", settings=settings.replace("data.csv", file), **files)
    (root / "data.csv").unlink()
    if isinstance(data, bytes):
        (root / file).write_bytes(data)
    elif file.endswith(".parquet"):
        data.write_parquet(root / file)
    else:
        data.write_csv(root / file)
    return root


def kept(root: Path) -> tuple[int, int, int, list[str]]:
    """Versions, datasets and blobs; and the status of each run."""
    workspace = Workspace.find(root)
    with workspace.store.read() as tx:
        versions, datasets = (len(tx.execute(sa.select(t)).all()) for t in (schema.version, schema.dataset))
        runs = list(tx.scalars(sa.select(schema.run.c.status)))
    blobs = len(list(workspace.blobs))
    workspace.store.close()
    return versions, datasets, blobs, runs


def parquet(frame: pl.DataFrame, tmp_path: Path) -> bytes:
    frame.write_parquet(tmp_path / "whole.parquet")
    return (tmp_path / "whole.parquet").read_bytes()


def with_cell(row: int, column: str, text: str) -> bytes:
    """The table with one cell as given; rows are counted from 1."""
    lines = CSV.decode().splitlines()
    cells = lines[row].split(",")
    cells[TABLE.columns.index(column)] = text
    lines[row] = ",".join(cells)
    return "\n".join(lines).encode()


def with_line(line: int, text: str) -> bytes:
    lines = CSV.decode().splitlines()
    lines[line - 1] = text
    return "\n".join(lines).encode()


def labelled(condition: pl.Expr) -> pl.DataFrame:
    return TABLE.with_columns(left=pl.when(condition).then(pl.lit("yes")).otherwise(pl.lit("no")))


REFUSED = {
    # by the number of its class: the file's name, its bytes, what is said
    "1 cut Parquet": ("data.parquet", lambda tmp: parquet(TABLE, tmp)[:-50], "data.parquet: is cut short"),
    "1 wrong magic": ("data.parquet", lambda tmp: b"PK\x03\x04" + b"x" * 500, "data.parquet: is no Parquet file"),
    "1 half-written": ("data.csv.gz", lambda tmp: gzip.compress(CSV)[:-20], "data.csv.gz: is cut or no gzip file"),
    "2 mixed types": (
        "data.csv", lambda tmp: with_cell(7, "tenure", "ten"),
        'data.csv, row 7, column tenure: "ten" is not a whole number',
    ),
    "2 decimal comma": (
        "data.csv", lambda tmp: with_cell(3, "charges", '"70,35"'),
        'data.csv, row 3, column charges: "70,35" is not a number.\nA comma as decimal mark? Declare decimal = ","',
    ),
    "3 semicolons": ("data.csv", lambda tmp: CSV.replace(b",", b";"), "data.csv: the header is one field with semicol"),
    "3 UTF-16": ("data.csv", lambda tmp: CSV.decode().encode("utf-16"), "data.csv: is UTF-16; save it as UTF-8"),
    "3 Latin-1": (
        "data.csv", lambda tmp: with_cell(4, "plan", "é").decode().encode("latin-1"),
        "data.csv: line 5 is not UTF-8 (Latin-1",
    ),
    "4 ragged": ("data.csv", lambda tmp: with_line(9, "c00007,3,4,basic"), "data.csv: line 9 has 4 fields; the header"),
    "4 open quote": (
        "data.csv", lambda tmp: with_line(6, 'c00004,3,4.5,"basic,no'), "data.csv: line 6: a quote is opened and not",
    ),
    "5 duplicate names": (
        "data.csv", lambda tmp: with_line(1, "customer,tenure,tenure,plan,left"), 'columns 2 and 3 are both called "te',
    ),
    "6 required and null": (
        "data.csv", lambda tmp: TABLE.with_columns(tenure=None).write_csv().encode(),
        "data.csv, row 1, column tenure: is null, which is not allowed here (400 such rows: 1, 2,",
    ),
    "7 nothing": ("data.csv", lambda tmp: b"", "data.csv: the file is empty"),
    "7 header only": ("data.csv", lambda tmp: CSV.splitlines()[0], "data.csv: the table has no rows, only its columns"),
    "7 one row": ("data.csv", lambda tmp: b"\n".join(CSV.splitlines()[:2]), "data.csv: one row is left to learn from"),
    "8 one class": (
        "data.csv", lambda tmp: labelled(pl.lit(False)).write_csv().encode(),
        "data.csv, column left: every one of the 400 rows is no; a model needs at least two classes",
    ),
    "8 one positive": (
        "data.csv", lambda tmp: labelled(pl.col("customer") == "c00007").write_csv().encode(),
        "data.csv, column left: yes is the value of 1 row of 400; at least 2 are needed",
    ),
    "9 label is null": (
        "data.csv", lambda tmp: TABLE.with_columns(left=None).write_csv().encode(),
        "data.csv: no rows are left to learn from of 400: 400 without a value in left",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_training(tmp_path: Path, run: Run, what: str) -> None:
    file, data, says = REFUSED[what]
    root = project(tmp_path, data(tmp_path), file)
    code, out, err = run(root, "train", "--json")
    assert code == 1 and says in err, err
    error = json.loads(out)
    assert error["code"] in ("data", "contract") and error["error"] in err
    assert err.splitlines()[-1].endswith("Nothing was registered.") and "Traceback" not in err
    assert kept(root) == (0, 0, 0, ["failed"])
    # Once the table is right, the same command works on.
    if what in ("1 cut Parquet", "5 duplicate names"):
        (root / file).write_bytes(parquet(TABLE, tmp_path) if file.endswith("parquet") else CSV)
        assert run(root, "train")[0] == 0
        assert kept(root)[0] == 1


def test_a_class_that_nobody_could_be_judged_by(tmp_path: Path, run: Run) -> None:
    root = project(tmp_path, CSV)
    held = places(TABLE, load_project(root).settings) < 0.2
    learned = [c for c, out in zip(TABLE["customer"], held, strict=True) if not out][:6]
    labelled(pl.col("customer").is_in(learned)).write_csv(root / "data.csv")
    code, _, err = run(root, "train")
    assert code == 1 and "column left: class 'yes' has 6 rows, and none among the held-out rows" in err
    assert kept(root)[0] == 0


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path, run: Run) -> None:
    root = project(tmp_path, CSV)
    assert run(root, "train")[0] == 0
    (root / "data.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n"))
    code, out, _ = run(root, "train")
    assert code == 0 and "it is the version that was there" in out  # the same rows, so the same dataset
    assert kept(root)[:2] == (1, 1)


def test_odd_columns_are_said_and_recorded(tmp_path: Path, run: Run) -> None:
    odd = TABLE.with_columns(charges=None, tenure=7, number=pl.int_range(400)).with_columns(
        plan=pl.when(pl.col("plan") == "pro").then(pl.lit("Pro")).otherwise("plan")
    )
    contract = CONTRACT + '[columns.number]\ntype = "int"\n'
    model = MODEL.replace('"customer"', '"customer", "charges"').replace(", monthly=per_month(data)", "")
    root = project(tmp_path, odd, contract=contract, model=model)
    code, _, err = run(root, "train")
    assert code in (0, 1)  # nothing but noise is left to learn from: the gate may say so
    said = [
        "column charges is null in every row",
        "column tenure has the same value in every row",
        "column number has another value in every row, like an id",
    ]
    lost = int((odd["plan"] == "Pro").sum())
    said.append(f"column plan: {lost} values are none of the declared values and became null")
    assert all(sentence in err for sentence in said), err
    shown = json.loads(run(root, "show", err_run(root), "--json")[1])
    notes = [note for step in shown["steps"] for note in step.get("notes", ())]
    assert all(any(sentence in note for note in notes) for sentence in said)


def err_run(root: Path) -> str:
    workspace = Workspace.find(root)
    with workspace.store.read() as tx:
        name = str(tx.scalar(sa.select(schema.run.c.run)))
    workspace.store.close()
    return name


@pytest.mark.parametrize("how", ["copied", "together"])
def test_a_leak_is_named_and_may_not_go_live(tmp_path: Path, run: Run, how: str) -> None:
    if how == "copied":
        frame, says = TABLE.with_columns(closed=pl.col("left") == "yes"), "column 'closed' alone has AUC 1.000"
    else:  # no column alone tells it, two together always do
        frame = labelled((pl.col("tenure") > 36) != (pl.col("plan") == "pro")).with_columns(closed=pl.lit(None))
        frame, says = frame.with_columns(closed=pl.col("tenure") > 36), "not one error on"
    contract = CONTRACT + '[columns.closed]\ntype = "bool"\n'
    model = MODEL.replace('"customer")', '"customer").with_columns(pl.col("closed").cast(pl.Int8))')
    root = project(tmp_path, frame, "data.parquet", contract=contract, model=model)
    code, out, err = run(root, "train")
    assert code == 1, out + err
    (line,) = [line for line in out.splitlines() if line.strip().startswith("leak-suspect")]
    assert " fail " in line and says in line
    assert "churn@1 is registered but may not be deployed" in out
    code, _, err = run(root, "deploy", "--forecast")
    assert (code, "may not be deployed: leak-suspect" in err) == (1, True), err


TIMED = SETTINGS.replace('entity = "customer"\n', 'entity = "customer"\nat = "asked_at"\nlabel_delay = "30d"\n')
TIMED_CONTRACT = CONTRACT + '[columns.asked_at]\ntype = "datetime"\nrole = "at"\n'
TIMED_MODEL = MODEL.replace('"customer")', '"customer", "asked_at")')


def test_what_lies_in_the_future_is_left_out_and_counted(tmp_path: Path, run: Run) -> None:
    now = clock.now()

    def asked(number: int) -> datetime:
        days = {0: 10, 1: 10, 2: 10, 3: -2, 4: -3}.get(number, -60)  # three asked later, two with labels not yet known
        return now + timedelta(days=days, minutes=-number)

    frame = TABLE.with_columns(asked_at=pl.Series([asked(n) for n in range(400)], dtype=pl.Datetime("us", "UTC")))
    root = project(tmp_path, frame, "data.parquet", TIMED, contract=TIMED_CONTRACT, model=TIMED_MODEL)
    code, out, err = run(root, "train", "--json")
    assert code == 0, err
    assert "3 rows lie in the future and were left out" in err
    assert "2 rows have a label that is not known yet and were left out" in err
    counts = json.loads(out)["details"]["counts"]
    assert (counts["future"], counts["unknown_yet"], counts["used"]) == (3, 2, 395)

    later = frame.with_columns(pl.col("asked_at") + timedelta(days=100))
    later.write_parquet(root / "data.parquet")
    code, _, err = run(root, "train")
    assert code == 1 and "no rows are left to learn from of 400: 400 with asked_at in the future" in err
    naive = frame.with_columns(pl.col("asked_at").dt.replace_time_zone(None))
    naive.write_parquet(root / "data.parquet")
    code, _, err = run(root, "train")
    assert code == 1 and "data.parquet, row 1, column asked_at" in err and "zone" in err
    assert kept(root)[0] == 1


ODD = {"a b": "tenure", "😀": "charges", 'q"u,o': "plan", "__class__": "left", "lambda": "number", "select": "more"}


def test_odd_names_are_kept_exactly_through_train_serve_and_log(tmp_path: Path) -> None:
    frame = table().with_columns(number=pl.int_range(pl.len()) % 5, more=pl.int_range(pl.len()) % 3)
    frame.rename({old: new for new, old in ODD.items()}).write_csv(tmp_path / "odd.csv")
    made = fairway(tmp_path, "new", "odd", "--data", "odd.csv", "--target", "__class__", "--yes")
    assert made.code == 0, made.err
    root = tmp_path / "odd"
    with (root / "fairway.toml").open("a") as file:
        file.write(PATIENT)
    trained = fairway(root, "train")
    assert trained.code == 0, trained.out + trained.err
    row = {"customer": "c1", "a b": 3, "😀": 80.5, 'q"u,o': "pro", "lambda": 2, "select": 1}
    workspace = Workspace.find(root)
    with serving(root) as target:
        assert fairway(root, "deploy").code == 0
        status, body = target.call("/v1/models/odd/predict", json.dumps({"rows": [row]}).encode())
        assert status == 200, body
        bad = json.dumps({"rows": [row | {'q"u,o': 3}]}).encode()
        status, body = target.call("/v1/models/odd/predict", bad)
        assert (status, json.loads(body)["field"]) == (422, 'rows[0].q"u,o')
    with serving(root):  # what was sealed at the end is folded at the next start
        deadline = clock.elapsed() + 30
        while not (found := log.predictions(workspace, "odd")).height and clock.elapsed() < deadline:
            time.sleep(0.1)
    assert {f"in_{name}" for name in row} <= set(found.columns)
    assert found["in_customer"][0].startswith("h-")  # who it was is kept hashed, unless a person says otherwise
    del row["customer"]
    assert {name: found[f"in_{name}"][0] for name in row} == row
    workspace.store.close()


@pytest.mark.parametrize(
    ("what", "data", "says"),
    [
        ("cut", CSV[:-9], "odd.csv: line 401 has 3 fields; the header has 5"),
        ("mixed", with_cell(200, "tenure", "n.a."), 'odd.csv, row 200, column tenure: "n.a."'),
        ("header only", CSV.splitlines()[0], "odd.csv: the table has no rows, only its columns"),
        ("one class", labelled(pl.lit(True)).write_csv().encode(), "odd.csv"),
    ],
)
def test_new_refuses_as_well_and_leaves_no_folder(tmp_path: Path, run: Run, what: str, data: bytes, says: str) -> None:
    (tmp_path / "odd.csv").write_bytes(data)
    code, _, err = run(tmp_path, "new", "churn", "--data", "odd.csv", "--target", "left", "--yes")
    assert code == 1 and says in err, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd.csv"]


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("fairway.toml", "", '[gates]\nacu = ">= 0.7"\n', "unknown key gates.acu; did you mean auc?"),
        ("fairway.toml", "", "[rolout]\nmargin = 0.01\n", "unknown key rolout; did you mean rollout?"),
        ("fairway.toml", "", "[rollout]\nmargin = 1.5\n", "rollout.margin"),
        ("fairway.toml", "", '[limits]\ntrain = "5 elephants"\n', "limits.train"),
        ("fairway.toml", 'entity = "customer"', 'entity = "custmer"', "custmer"),
        ("fairway.toml", "format = 1", "format = 2", "install a newer one"),
        ("contract.toml", "nulls = true", "nuls = true", "unknown key columns.charges.nuls; did you mean nulls?"),
        ("contract.toml", 'type = "int"', 'type = "integer"', "columns.tenure.type"),
        ("contract.toml", "", "[columns.tenure]\n", "contract.toml"),
    ],
)
def test_a_setting_that_can_not_be_read_runs_nothing(
    tmp_path: Path, run: Run, file: str, old: str, new: str, says: str
) -> None:
    root = project(tmp_path, CSV)
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1) if old else path.read_text() + new)
    code, out, err = run(root, "train")
    assert (code, out) == (2, "") and err.startswith(file) and says in err, err
    assert kept(root) == (0, 0, 0, [])
