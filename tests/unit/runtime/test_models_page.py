"""Every model.py of docs/models.md trains, and its package answers as the trained object did."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fairway.contract.settings import Settings
from fairway.runtime.code import import_code
from fairway.runtime.proof import choose
from fairway.runtime.runtimes import ObjectRuntime
from fairway.training.work import fit

PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"
BLOCKS = {
    text.splitlines()[0].removeprefix("# model.py: "): text
    for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
}
SETTINGS = Settings(name="m", task="binary", target="left")


def rows(n: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "customer": [f"c{i}" for i in range(n)],
            "tenure": rng.integers(0, 72, n),
            "charges": [None if i % 50 == 0 else float(c) for i, c in enumerate(rng.uniform(20, 120, n))],
            "plan": pl.Series(rng.choice(["basic", "plus"], n)).cast(pl.Enum(["basic", "plus"])),
        }
    )


@pytest.mark.parametrize("title", BLOCKS)
def test_a_learner_of_the_page(title, tmp_path):
    text = BLOCKS[title]
    if "torch" in text:
        pytest.importorskip("torch", reason="PyTorch's wheels are large: not in the lock. pip install 'fairway[torch]'")
    (tmp_path / "model.py").write_text(text)
    code, data = import_code(tmp_path), rows()
    X = code.features(data)
    y = data.select(left=(pl.col("tenure") + 20 * (pl.col("plan") == "plus") < 40).cast(pl.Int8)).to_series()
    model = fit(code, X, y, {})
    outputs = ObjectRuntime(model, code, task="binary", classes=2).predict(X)
    made = choose(
        model, code, tmp_path / "made", task="binary", classes=2, train=X, heldout=X, outputs=outputs
    )  # fmt: skip
    assert np.abs(made.runtime.predict(X) - outputs).max() < 1e-9
    assert ((outputs > 0.5) == y.to_numpy()).mean() > 0.7
