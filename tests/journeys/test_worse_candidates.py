"""A candidate that is worse than the champion is refused by the name of the check that saw it; an equal one is not."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from train_project import MODEL, load, table, write_project

from fairway.path.train import train
from fairway.store import schema

RETURN = '    return data.drop("customer")'
BLIND_TO_PLUS = (
    '    those = pl.col("plan").cast(pl.String) == "plus"\n'
    '    data = data.with_columns(tenure=pl.when(those).then(0).otherwise("tenure"), '
    'charges=pl.when(those).then(0.0).otherwise("charges"))\n'
)
FORGETS_TENURE = "    data = data.with_columns(tenure=pl.lit(0, pl.Int64), charges=pl.lit(1.0))\n"
BLIND_TO_BASIC = BLIND_TO_PLUS.replace('"plus"', '"basic"')

WORSE = {
    "learns nothing": ("not-worse-than-champion", "max_iter = 20", "max_iter = 1\nlearning_rate = 0.0001", ""),
    "forgets its best columns": ("not-worse-than-champion", "", "", FORGETS_TENURE),
    "blind to one plan": ("slices-not-worse", "", "", BLIND_TO_PLUS),
    "blind to another plan": ("slices-not-worse", "", "", BLIND_TO_BASIC),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first version is the champion."""
    root = write_project(tmp_path_factory.mktemp("champion") / "churn")
    table(6000).write_csv(root / "data.csv")
    assert train(load(root), actor="ana").verdict == "pass"
    store = load(root).workspace.store
    row = {
        "workspace": store.workspace, "endpoint": "churn", "model": "churn", "epoch": 1, "share_epoch": 1,
        "champion": 1, "shares": {"1": 1.0}, "shadows": [], "salt": "", "state": "live", "changed_by": "ana",
        "changed_at": datetime.now(UTC),
    }  # fmt: skip
    with store.write() as tx:
        tx.execute(sa.insert(schema.endpoint).values(row))
    return root


@pytest.mark.parametrize("how", WORSE)
def test_a_worse_candidate_is_refused(served: Path, tmp_path: Path, how: str) -> None:
    check, old, new, lines = WORSE[how]
    root = shutil.copytree(served, tmp_path / "churn")
    settings = (root / "fairway.toml").read_text()
    (root / "fairway.toml").write_text(settings.replace(old, new) if old else settings)
    (root / "model.py").write_text(MODEL.replace(RETURN, lines + RETURN))
    result = train(load(root), actor="ana")
    verdicts = {c.name: c.verdict for c in result.checks}
    assert (result.version, result.verdict, verdicts[check]) == (2, "fail", "fail"), verdicts


@pytest.mark.parametrize("parameter", ["max_iter = 25", "max_iter = 20\nl2_regularization = 0.1"])
def test_an_equal_candidate_passes(served: Path, tmp_path: Path, parameter: str) -> None:
    root = shutil.copytree(served, tmp_path / "churn")
    settings = (root / "fairway.toml").read_text().replace("max_iter = 20", parameter)
    (root / "fairway.toml").write_text(settings)
    result = train(load(root), actor="ana")
    verdicts = {c.name: c.verdict for c in result.checks}
    assert result.verdict == "pass", verdicts
    assert (verdicts["not-worse-than-champion"], verdicts["slices-not-worse"]) == ("pass", "pass")
