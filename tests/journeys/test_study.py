"""A study of the data: planted wrong labels are listed, more rows are forecast, rows without a label are ranked."""

from pathlib import Path

import numpy as np
import polars as pl
import train_project

from fairway.path import study


def test_a_study_finds_what_was_planted(tmp_path: Path) -> None:
    root = train_project.write_project(tmp_path / "p")
    frame = pl.read_csv(root / "data.csv")
    rng = np.random.default_rng(0)
    score = 3.0 - frame["tenure"] / 10 + (frame["charges"].fill_null(70.0) - 70) / 20
    clean = (score > 0).to_numpy()
    flipped = rng.choice(frame.height, 60, replace=False)
    labels = clean.copy()
    labels[flipped] = ~labels[flipped]
    text = np.where(labels, "yes", "no").astype(object)
    text[-100:] = None
    frame.with_columns(left=pl.Series(text.tolist(), dtype=pl.String)).write_csv(root / "data.csv")

    found = study.study_data(train_project.load(root))

    planted = {f"c{i:05d}" for i in flipped}
    listed = [row["values"]["customer"] for row in found.labels["rows"]]
    assert found.rows == 1400
    assert sum(name in planted for name in listed) >= 0.8 * len(listed)
    assert 0.02 < found.labels["share"] < 0.10  # 4 % were flipped
    assert found.sufficiency["sizes"] == sorted(found.sufficiency["sizes"])
    assert found.sufficiency["forecast"]["now"] * 2 == found.sufficiency["forecast"]["then"]
    assert found.next_labels["waiting"] == 100
    scores = [row["score"] for row in found.next_labels["rows"]]
    assert scores == sorted(scores, reverse=True) and found.next_labels["rows"][0]["where"].startswith("row ")
    said = "\n".join(study.lines(found))
    assert "rows look wrong to the model" in said and "label next" in said
