"""What `fairway new` writes for vectors, texts, images and lists trains unchanged, and may be deployed."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fairway.path.new import new
from fairway.path.train import train

N = 700


def tables() -> dict[str, pl.DataFrame]:
    draw = np.random.default_rng(5)
    yes = draw.random(N) < 0.4
    place = draw.normal(size=(N, 4)) + yes[:, None]
    word = [f"{'win cash' if s else 'see you'} {draw.choice(['now', 'later', 'today'])} {i}" for i, s in enumerate(yes)]
    label = np.where(yes, "yes", "no")
    return {
        "text-vector": pl.DataFrame(
            {
                "text": word,
                "place": place.tolist(),
                "kind": draw.choice(["a", "b"], N),
                "size": draw.normal(size=N),
                "price": 3 * yes + draw.normal(size=N),
            }
        ),
        "vector-image-lists": pl.DataFrame(
            {
                "place": place.tolist(),
                "picture": [b"\x89PNG\r\n\x1a\n" + draw.bytes(20) for _ in range(N)],
                "tags": [["a"] * int(k) for k in draw.integers(0, 4, N)],
                "y": label,
            }
        ),
    }


@pytest.mark.parametrize("name", ["text-vector", "vector-image-lists"])
def test_the_project_of_such_a_table_may_be_deployed(name: str, tmp_path: Path) -> None:
    table = tables()[name]
    table.write_parquet(tmp_path / "table.parquet")
    made = new(name, tmp_path / "table.parquet", table.columns[-1], yes=True, folder=tmp_path, owner="ana")
    result = train(made.project)
    assert result.verdict == "pass", [(c.name, c.summary) for c in result.checks if c.verdict not in ("pass", "skip")]
    assert "extreme-vector" in {check.name for check in result.checks if check.verdict == "pass"}
