from datetime import timedelta

import pytest

from fairway.contract.settings import RolloutSettings, Settings
from fairway.errors import RolloutRefused
from fairway.rollout.plan import Facts, Plan, chosen_plan, plan_first, plan_rollout
from fairway.rollout.state import Decision, Phase, next_phase

BASE = Settings(
    name="late", task="binary", target="late", positive="yes", label_delay=timedelta(hours=6), risk="medium"
)
FLIGHTS = Facts(traffic_per_day=496.0, loss_mean=0.12, loss_sd=0.2, sd_diff=0.03, score_mean=0.14, score_sd=0.08)


def with_rollout(**changes: object) -> Settings:
    return Settings(**{**vars(BASE), "rollout": RolloutSettings(**changes)})  # type: ignore[arg-type]


def test_steps_follow_the_risk() -> None:
    kinds = {
        risk: [step.kind for step in plan_rollout(Settings(**{**vars(BASE), "risk": risk}), FLIGHTS).steps]
        for risk in ("low", "medium", "high")
    }
    assert kinds["low"] == ["smoke", "canary", "canary", "champion"]
    assert kinds["medium"] == kinds["high"] == ["shadow", *kinds["low"]]


def test_plan_of_the_flights_decides_within_its_timeout() -> None:
    plan = plan_rollout(BASE, FLIGHTS)
    assert plan.decides and plan.paired
    assert plan.forecast_days is not None and 2.0 < plan.forecast_days < 6.0
    assert plan.timeout_s == timedelta(days=14).total_seconds()
    assert plan.score_margin == pytest.approx(0.014)
    assert Plan.from_dict(plan.as_dict()) == plan


def test_timeout_is_label_delay_forecast_and_a_season() -> None:
    late = Settings(**{**vars(BASE), "label_delay": timedelta(days=30)})
    plan = plan_rollout(late, FLIGHTS)
    assert plan.forecast_days is not None
    assert plan.timeout_s == pytest.approx((30 + plan.forecast_days + 1) * 86_400)
    assert plan.decides


def test_independent_arms_at_low_traffic_are_refused() -> None:
    depends = with_rollout(label_depends_on_answer=True, shares=(0.1,))
    with pytest.raises(RolloutRefused, match="no plan can decide"):
        chosen_plan(depends, FLIGHTS)


def test_too_slow_a_plan_is_refused_with_the_paired_shadow() -> None:
    impatient = with_rollout(timeout=timedelta(days=3), n_min=500)
    slow = Facts(**{**vars(FLIGHTS), "traffic_per_day": 310.0})
    with pytest.raises(RolloutRefused, match="paired shadow"):
        chosen_plan(impatient, slow)
    other = chosen_plan(impatient, slow, alternative=True)
    assert [step.kind for step in other.steps] == ["shadow", "champion"] and other.decides


def test_no_traffic_is_refused_with_its_reason() -> None:
    with pytest.raises(RolloutRefused, match="nothing was predicted"):
        chosen_plan(BASE, Facts(traffic_per_day=0.0))


def test_missing_margin_is_two_percent_of_the_champions_loss() -> None:
    price = Settings(name="p", task="regression", target="y", rollout=RolloutSettings(margin=None))
    plan = plan_rollout(price, Facts(traffic_per_day=1000.0, loss_mean=5.0, loss_sd=4.0))
    assert plan.margin == pytest.approx(0.1) and plan.loss == "absolute_error"
    with pytest.raises(RolloutRefused, match="margin"):
        plan_rollout(price, Facts(traffic_per_day=1000.0))


def test_first_version_has_absolute_guardrails_only() -> None:
    plan = plan_first(BASE)
    assert plan.first and plan.guardrails == ("errors", "slow") and plan.decides
    assert plan_first(BASE, judge_latency=False).guardrails == ("errors",)


def test_a_missing_decision_never_moves_traffic_forward() -> None:
    for phase in Phase:
        for decision in (Decision.CONTINUE, Decision.ASK):
            assert next_phase(phase, decision) is phase
    assert next_phase(Phase.RUNNING, Decision.PROMOTE) is Phase.GUARDING
    assert next_phase(Phase.GUARDING, Decision.PROMOTE) is Phase.PROMOTED
    assert next_phase(Phase.PAUSED, Decision.PROMOTE) is Phase.PAUSED
    assert next_phase(Phase.GUARDING, Decision.ROLLBACK) is Phase.ROLLED_BACK
