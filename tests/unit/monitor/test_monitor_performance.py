from datetime import timedelta

import numpy as np
import pytest

from fairway.contract.settings import Settings
from fairway.monitor.losses import Labels, row_loss, truth
from fairway.monitor.performance import HeldOut, advance, held_out, metric, tuned_f
from fairway.monitor.resolved import as_dict, settings_from
from fairway.monitor.skill import SkillDetector, update

SETTINGS = Settings(name="late", task="binary", target="late", positive="yes", label_delay=timedelta(hours=6))
LABELS = Labels.of(SETTINGS)


def flights(n: int, seed: int, *, base: float = 0.15, sd: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities with an AUC of about 0.66, and what happened."""
    random = np.random.default_rng(seed)
    k = base * (1 - base) / sd**2 - 1
    p = random.beta(base * k, (1 - base) * k, n)
    return p, random.random(n) < p


def rows(p: np.ndarray, y: np.ndarray) -> list[tuple[float, str, float]]:
    return [(float(a), "yes" if b else "no", float(b)) for a, b in zip(p, y, strict=True)]


def test_good_model_at_a_low_base_rate_never_alarms_in_a_year() -> None:
    p, y = flights(365 * 400, 1)
    _, fired = advance({"version": 1}, rows(p, y), HeldOut(9_000, float(np.mean(y)), 0.15), SETTINGS, LABELS)
    assert fired == []


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_labels_alarm_within_days(seed: int) -> None:
    known = HeldOut(9_000, 0.15, 0.15)
    p, y = flights(14 * 496, seed)
    state, fired = advance({"version": 1}, rows(p, y), known, SETTINGS, LABELS)
    assert fired == []
    p, y = flights(8 * 496, seed + 100)
    shuffled = np.random.default_rng(seed).permutation(y)
    _, fired = advance(state, rows(p, shuffled), known, SETTINGS, LABELS)
    assert any(rule["rule"] == "no better than the base rate" for rule in fired)


def test_more_errors_by_a_risen_base_rate_are_a_notice_where_it_is_low_and_an_alarm_where_it_is_not() -> None:
    p, _ = flights(4_000, 7)
    storm = np.random.default_rng(7).random(4_000) < np.clip(2.2 * p, 0, 1)
    _, fired = advance({"version": 1}, rows(p, storm), HeldOut(9_000, 0.15, 0.15), SETTINGS, LABELS)
    assert {(rule["rule"], rule.get("severity")) for rule in fired} == {("error rate", "notice")}
    half = np.random.default_rng(8).random(4_000) < 0.5
    sure = [(0.9, "yes" if y else "no", float(y)) for y in half]
    _, fired = advance({"version": 1}, sure, HeldOut(9_000, 0.2, 0.4), SETTINGS, LABELS)
    assert ("error rate", None) in {(rule["rule"], rule.get("severity")) for rule in fired}


def test_batches_of_any_size_give_the_same_state() -> None:
    p, y = flights(3_000, 3)
    known, data = HeldOut(9_000, 0.15, 0.15), rows(p, y)
    whole, _ = advance({"version": 1}, data, known, SETTINGS, LABELS)
    state = {"version": 1}
    for start in range(0, 3_000, 170):
        state, _ = advance(state, data[start : start + 170], known, SETTINGS, LABELS)
    assert state == whole


def test_few_held_out_rows_let_the_first_live_rows_be_the_reference() -> None:
    p, y = flights(2_500, 4)
    data = rows(p, y)
    state, _ = advance({"version": 1}, data[:900], HeldOut(200, 0.1, 0.1), SETTINGS, LABELS)
    assert "detector" not in state and state["warm"]["n"] == 900
    state, _ = advance(state, data[900:], HeldOut(200, 0.1, 0.1), SETTINGS, LABELS)
    assert state["detector"]["n"] == 1_500 and state["skill"]["base"] == pytest.approx(float(np.mean(y[:1_000])))


def test_skill_detector_keeps_its_promise_on_a_constant_model() -> None:
    """At the edge of the null (the model is the constant) the mean number of rows between alarms is at least c."""
    random, alarms, n = np.random.default_rng(0), 0, 40_000
    for _ in range(5):
        y = (random.random(n) < 0.2).astype(float)
        p = np.clip(0.2 + random.choice([-0.001, 0.001], n), 0, 1)
        state, _ = update(SkillDetector(base=0.2, c=20_000.0), list(zip(p.tolist(), y.tolist(), strict=True)))
        alarms += state.alarms
    assert alarms <= 5 * n / 20_000


def test_losses_of_every_task() -> None:
    assert row_loss("brier", LABELS, "yes", 0.75) == pytest.approx(0.0625)
    assert row_loss("zero_one", LABELS, "no", 0.75) == 1.0
    assert row_loss("brier", LABELS, None, 0.75) is None
    three = Labels(task="multiclass", classes=("a", "b", "c"))
    assert row_loss("brier", three, "b", [0.5, 0.25, 0.25]) == pytest.approx(0.25 + 0.5625 + 0.0625)
    assert row_loss("zero_one", three, "b", [0.5, 0.25, 0.25]) == 1.0
    assert truth(three, "never seen") is None
    price = Labels(task="regression")
    assert row_loss("absolute_error", price, 3, 4.5) == 1.5
    flag = Labels(task="binary", positive="true")
    assert truth(flag, True) == 1.0 and truth(flag, False) == 0.0


def test_metric_has_intervals() -> None:
    p, y = flights(500, 5)
    found = metric(rows(p, y), SETTINGS, LABELS)
    assert found["n"] == 500 and found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert found["loss_low"] < found["mean_loss"] < found["loss_high"]
    assert metric([], SETTINGS, LABELS) == {"n": 0}


def test_held_out_reads_an_evaluation() -> None:
    found = held_out({"n": 2_000, "metrics": {"accuracy": {"value": 0.9}}, "class_rows": [1_700, 300]})
    assert found.n == 2_000 and found.error == pytest.approx(0.1) and found.base == pytest.approx(0.15)
    assert held_out({}) == HeldOut(0, None, None)


def test_f_grows_until_the_reference_itself_is_quiet() -> None:
    calm = [0.1 + 0.001 * (i % 5) for i in range(28)]
    assert tuned_f(calm, window_days=1.0, budget=0.25) == 1.0
    assert tuned_f([*calm, 0.2], window_days=1.0, budget=0.25) > 1.0


def test_settings_survive_the_store() -> None:
    from fairway.contract.settings import RetrainSettings, RolloutSettings, SourceSettings

    made = Settings(
        name="x", task="regression", target="y", label_delay=timedelta(days=30),
        sources={"events": SourceSettings(path=None, at="t", key="k")},
        rollout=RolloutSettings(shadow=timedelta(days=1), shares=(0.5,), margin=None),
        retrain=RetrainSettings(every=timedelta(days=14)),
    )  # fmt: skip
    assert settings_from(as_dict(made)) == made
    assert settings_from({**as_dict(made), "unknown": 1, "label_delay": 3600}).label_delay == timedelta(hours=1)
