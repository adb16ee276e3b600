"""Assignment: known answers, exact shares, and what a changed share may move."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.stats.assignment import assign, unit_hash

SRC = Path(__file__).resolve().parents[3] / "src"


@pytest.mark.parametrize(
    ("entity", "value"),
    [("user-1", 0.3561630915518192), ("user-2", 0.9524011482291339), ("42", 0.013605233457516202)],
)
def test_unit_hash_known_answers(entity, value):
    assert unit_hash(entity, "exp-7") == value


@pytest.mark.parametrize(
    ("shares", "arms"),
    [
        ({"a": 0.9, "b": 0.1}, "aaaaa"),
        ({"a": 0.7, "b": 0.1, "c": 0.2}, "acacc"),
        ({"a": 0.45, "b": 0.35, "c": 0.20}, "bcabc"),
    ],
)
def test_assign_known_answers(shares, arms):
    assert "".join(assign(str(i), "exp-7", shares) for i in range(5)) == arms


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}, {}, {"a": float("nan")}])
def test_assign_refuses_shares(shares):
    with pytest.raises(ValueError):
        assign("x", "salt", shares)


def test_marginal_shares_are_the_shares():
    shares = {"a": 0.6, "b": 0.3, "c": 0.1, "off": 0.0}
    found = [assign(f"u{i}", "s", shares) for i in range(20_000)]
    for arm, share in shares.items():
        assert found.count(arm) / len(found) == pytest.approx(share, abs=0.015)
    assert "off" not in found


def test_salts_are_independent():
    shares = {"a": 0.5, "b": 0.5}
    pairs = [(assign(str(i), "one", shares), assign(str(i), "two", shares)) for i in range(10_000)]
    assert pairs.count(("a", "a")) / len(pairs) == pytest.approx(0.25, abs=0.02)


@given(st.text(max_size=20).filter(lambda s: s.isprintable()), st.floats(0, 1), st.floats(0, 1))
def test_raising_an_arm_moves_entities_only_into_it(entity, share, raised):
    before, after = sorted((share, raised))
    others = {"b": 0.5, "c": 0.3, "d": 0.2}
    old = assign(entity, "s", {"a": before, **{k: v * (1 - before) for k, v in others.items()}})
    new = assign(entity, "s", {"a": after, **{k: v * (1 - after) for k, v in others.items()}})
    assert new in (old, "a")


@given(st.text(max_size=20).filter(lambda s: s.isprintable()))
def test_order_of_arms_does_not_matter(entity):
    assert assign(entity, "s", {"a": 0.3, "b": 0.7}) == assign(entity, "s", {"b": 0.7, "a": 0.3})
    assert 0.0 <= unit_hash(entity, "s") < 1.0


def test_hot_path_loads_no_numpy():
    code = "import sys, fairway.stats.assignment; sys.exit('numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
