"""A contract's life on the command line: shown, broken, renewed, compared with what serves, handed to others."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from train_project import CONTRACT, table, write_project

from fairway.cli.main import call

Run = Callable[..., tuple[int, str, str]]

RULED = CONTRACT.replace('type = "int"\n', 'type = "int"\nrange = [0, 90]  # as sales say\n', 1) + (
    '[rules.paid]\ncheck = "charges > 0"\nwhen = \'plan == "pro"\'\n'
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def start(root: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(root)
        capsys.readouterr()
        code = call(list(arguments))
        return (code, *capsys.readouterr())

    return start


def test_a_broken_table_is_shown_and_nothing_is_trained(tmp_path: Path, run: Run) -> None:
    root = write_project(tmp_path / "churn", contract=RULED)
    code, out, _ = run(root, "check", "--only", "table")
    assert (code, "rules hold" in out) == (0, True), out
    frame = table(400).with_columns(
        tenure=pl.when(pl.int_range(400) == 6).then(99).otherwise("tenure"),
        charges=pl.when(pl.int_range(400) % 100 == 3).then(-1.0).otherwise("charges"),
        plan=pl.when(pl.int_range(400) % 100 == 3).then(pl.lit("pro")).otherwise("plan"),
    )
    frame.write_csv(root / "data.csv")
    code, out, _ = run(root, "check", "--html", "rules.html")
    assert code == 1 and "2 of " in out and "nothing was trained" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "row 7: 99" in lines["tenure.range"] and "  1 " in lines["tenure.range"]
    assert 'row 4: charges -1.0, plan "pro"; row 104' in lines["paid"] and "  4 " in lines["paid"]
    assert "tenure.range" in (root / "rules.html").read_text()
    code, out, _ = run(root, "check", "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["contract"]["verdict"]) == (1, "fail", "fail")
    assert [r["rule"] for r in found["contract"]["rules"] if r["verdict"] == "fail"] == ["tenure.range", "paid"]
    code, _, err = run(root, "train")  # a sentence, as ever
    assert code == 1 and err.startswith("data.csv, row 7, column tenure: 99 is outside the declared range 0 to 90")
    assert run(root, "show", "versions", "--json")[1].strip() == "[]"


def test_a_contract_is_renewed_compared_and_exported(tmp_path: Path, run: Run) -> None:
    root = write_project(tmp_path / "churn", contract=RULED)
    assert run(root, "train")[0] in (0, 1)
    before = (root / "contract.toml").read_text()
    code, out, _ = run(root, "check", "--update-contract", "--yes")
    assert code == 0 and "Nothing to write" in out and (root / "contract.toml").read_text() == before
    changed = pl.when(pl.int_range(400) < 5).then(pl.lit("team")).otherwise("plan")
    table(400).with_columns(plan=changed, region=pl.lit("n") + (pl.int_range(400) % 3).cast(pl.String)).write_csv(
        root / "data.csv"
    )
    code, out, _ = run(root, "check", "--update-contract")
    assert code == 3 and "+ team" in out and "region" in out and "--update-contract --yes" in out
    assert (root / "contract.toml").read_text() == before
    assert run(root, "check", "--update-contract", "--dry-run", "--yes")[0] == 0
    assert (root / "contract.toml").read_text() == before
    assert run(root, "check", "--update-contract", "--yes")[0] == 0
    after = (root / "contract.toml").read_text()
    assert "range = [0, 90]  # as sales say" in after and '"pro", "team"]' in after and "reviewed = false" in after
    code, out, _ = run(root, "diff", "churn@1", "contract.toml", "--json")
    found = json.loads(out)
    assert code == 0 and {(c["column"], c["effect"]) for c in found["changes"]} == {
        ("plan", "widens"),
        ("region", "breaks"),
    }
    assert any(use["column"] == "plan" and "model.py line" in use["what"] for use in found["downstream"])
    _, out, _ = run(root, "diff", "churn@1", "contract.toml")
    assert "breaks what callers send" in out and "missing_field" in out and "used by" in out
    code, out, _ = run(root, "show", "contract")
    assert code == 0 and "not reviewed yet" in out and "rule paid: charges > 0" in out
    code, out, _ = run(root, "show", "churn@1", "--odcs")
    assert code == 0 and out.startswith("apiVersion: v3.") and "kind: DataContract" in out
    assert run(root, "check", "--yes")[0] == 2  # a check changes nothing, so there is nothing to say yes to


def test_two_versions_say_what_broke_between_them(tmp_path: Path, run: Run) -> None:
    root = write_project(tmp_path / "churn", contract=CONTRACT)
    assert run(root, "train")[0] in (0, 1)
    (root / "contract.toml").write_text(RULED)
    assert run(root, "train")[0] in (0, 1)
    code, out, _ = run(root, "diff", "churn@1", "churn@2")
    assert code == 0 and "contract: 2 changes; 2 of them break what callers send" in out
    assert "range" in out and "rules.paid" in out
    found = json.loads(run(root, "diff", "churn@1", "churn@2", "--json")[1])
    assert {c["key"] for c in found["contract"]["changes"]} == {"range", "rule"}
