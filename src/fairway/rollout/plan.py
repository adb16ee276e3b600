"""A rollout's plan: its steps, what it must show, and how long that should take. Pure.

The plan is fixed before the first look (METHODS 1f): margins, the split of alpha and the thresholds may not follow the
data. Durations are seconds in the JSON form.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from fairway.contract.settings import Risk, Settings
from fairway.contract.view import format_duration
from fairway.errors import RolloutRefused
from fairway.monitor.losses import Loss, primary_loss
from fairway.stats.means import planned_v
from fairway.stats.power import rows_to_decide_paired

ALPHA = 0.05
SRM_BAR = math.log(1000.0)
STEP_BAR = math.log(3.0)  # no step up while a guardrail's e-value is above 3
BURN_IN = 100
GUARD = timedelta(hours=24)
MIN_TIMEOUT = timedelta(days=14)
LONGEST = timedelta(days=90)  # a derived timeout beyond this is no plan: the data has moved on by then
SMOKE_SHARE, SMOKE_TIME, SMOKE_ROWS = 0.01, timedelta(hours=1), 20
SHADOW: dict[Risk, timedelta] = {"low": timedelta(0), "medium": timedelta(days=1), "high": timedelta(days=7)}

Kind = Literal["shadow", "smoke", "canary", "champion"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage. time, rows: both must have passed before the next one. rows: predictions scored by both versions
    when paired, else by the challenger."""

    kind: Kind
    share: float
    time_s: float
    rows: int

    def __str__(self) -> str:
        if self.kind == "shadow":
            return f"shadow {format_duration(timedelta(seconds=self.time_s))}" if self.time_s else "shadow"
        return "champion" if self.kind == "champion" else f"canary {self.share:.0%}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before the start. loss_mean, loss_sd: the champion's primary loss per row.

    sd_diff: of the paired difference of the two versions' losses on held-out rows; None: taken as loss_sd, which is
    right for losses that correlate by one half and too much for two trainings of the same model.
    slow_ms: the champion's latency that 1 % of its recent requests exceed; None without enough of them.
    """

    traffic_per_day: float
    loss_mean: float | None = None
    loss_sd: float | None = None
    sd_diff: float | None = None
    slow_ms: float | None = None
    score_mean: float | None = None
    score_sd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """See the module. first: there is no champion. label_delay_s None: labels never come, a person decides.

    v_opt: tunes the primary's test; slow_ms: frozen threshold of slow requests. forecast_days, deciding_rows: None
    when no test can decide. timeout_s: from the start.
    """

    steps: tuple[Step, ...]
    first: bool
    paired: bool
    loss: Loss
    margin: float
    n_min: int
    season_s: float
    label_delay_s: float | None
    guardrails: tuple[str, ...]
    traffic_per_day: float
    timeout_s: float
    guard_s: float = GUARD.total_seconds()
    alpha: float = ALPHA
    max_errors: float = 0.01
    max_ms: float = 100.0
    v_opt: float = 1.0
    slow_ms: float | None = None
    score_margin: float | None = None
    score_v_opt: float = 1.0
    deciding_rows: int | None = None
    forecast_days: float | None = None

    @property
    def alpha_guardrail(self) -> float:
        return self.alpha / max(1, len(self.guardrails))

    @property
    def decides(self) -> bool:
        """Whether it can decide before its timeout at this traffic, as far as can be told beforehand."""
        if self.first or self.label_delay_s is None:
            return self.forecast_days is not None
        return self.forecast_days is not None and self.forecast_days * 86_400 <= self.timeout_s

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "steps": [asdict(s) for s in self.steps], "guardrails": list(self.guardrails)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """Inverse of `as_dict`."""
        steps = tuple(Step(**step) for step in data["steps"])
        return cls(**{**data, "steps": steps, "guardrails": tuple(data["guardrails"])})

    def lines(self) -> list[str]:
        """The plan in words, for a person who is about to start it."""
        if self.first:
            return [
                "there is no champion, so nothing to compare it with and no shares to step through",
                f"guard {format_duration(timedelta(seconds=self.guard_s))}: taken off when errors pass "
                f"{self.max_errors:.0%} or p99 passes {self.max_ms:g} ms (absolute: there is no champion)",
            ]
        head = ", ".join(str(step) for step in self.steps[:-1])
        said = [f"plan: {head}, then champion. {self.traffic_per_day:,.0f} predictions a day"]
        if self.label_delay_s is None:
            said.append("when labels arrive is unknown, so the primary metric can't be judged: a person decides")
        elif self.forecast_days is None:
            said.append(f"not worse in {self.loss} by {self.margin:g}: can't be told at this traffic")
        else:
            said.append(
                f"not worse in {self.loss} by more than {self.margin:g}: in about {self.forecast_days:.1f} days, "
                f"{self.deciding_rows:,} labelled predictions; power 80 %"
            )
        said.append(f"timeout {self.timeout_s / 86_400:.1f} d: label delay + forecast + one season")
        return said


def plan_first(settings: Settings, *, judge_latency: bool = True) -> Plan:
    """The first version: live at 100 % after staging, with absolute guardrails for 24 h."""
    return Plan(
        steps=(Step(kind="champion", share=1.0, time_s=0.0, rows=0),), first=True, paired=False,
        loss=primary_loss(settings), margin=settings.rollout.margin or 0.0, n_min=0, season_s=0.0,
        label_delay_s=settings.label_delay.total_seconds() if settings.label_delay else None,
        guardrails=("errors", "slow") if judge_latency else ("errors",), traffic_per_day=0.0, timeout_s=0.0,
        max_errors=settings.endpoint.max_errors, max_ms=settings.endpoint.p99 / timedelta(milliseconds=1),
        forecast_days=0.0,
    )  # fmt: skip


def plan_rollout(settings: Settings, facts: Facts, *, shares: tuple[float, ...] | None = None) -> Plan:
    """The plan by the settings at this traffic; look at `decides` before using it.

    shares: instead of the settings'; () is a paired shadow, then champion.
    Raises: RolloutRefused when no margin is set and the champion's mean loss is not known.
    """
    rules = settings.rollout
    paired = not rules.label_depends_on_answer
    margin = rules.margin
    if margin is None:
        if not facts.loss_mean:
            raise RolloutRefused(
                "no margin: [rollout] margin is not set and the champion's mean loss is unknown, so 2 % of it can't "
                "be taken; set margin in fairway.toml"
            )
        margin = 0.02 * facts.loss_mean
    steps = _steps(settings, rules.shares if shares is None else shares, paired)
    guardrails = ("errors", "slow") if facts.slow_ms is not None else ("errors",)
    draft = Plan(
        steps=steps, first=False, paired=paired, loss=primary_loss(settings), margin=margin, n_min=rules.n_min,
        season_s=rules.season.total_seconds(),
        label_delay_s=settings.label_delay.total_seconds() if settings.label_delay is not None else None,
        guardrails=guardrails, traffic_per_day=facts.traffic_per_day, timeout_s=MIN_TIMEOUT.total_seconds(),
        max_errors=settings.endpoint.max_errors, max_ms=settings.endpoint.p99 / timedelta(milliseconds=1),
        slow_ms=facts.slow_ms,
    )  # fmt: skip
    return _forecast(draft, facts, rules.timeout)


def paired_shadow(settings: Settings, facts: Facts) -> Plan:
    """What low traffic can do: both versions score every row, then the challenger becomes champion."""
    return plan_rollout(settings, facts, shares=())


def _steps(settings: Settings, shares: tuple[float, ...], paired: bool) -> tuple[Step, ...]:
    shadow = settings.rollout.shadow if settings.rollout.shadow is not None else SHADOW[settings.risk]
    n_min = settings.rollout.n_min
    steps = []
    if shadow or not shares:
        # Alone, the shadow is where the comparison happens.
        time_s = max(shadow, settings.rollout.season).total_seconds() if not shares else shadow.total_seconds()
        steps.append(Step(kind="shadow", share=0.0, time_s=time_s, rows=n_min if paired else 0))
    for share in shares:
        if share <= SMOKE_SHARE:
            steps.append(Step(kind="smoke", share=share, time_s=SMOKE_TIME.total_seconds(), rows=SMOKE_ROWS))
        else:
            steps.append(Step(kind="canary", share=share, time_s=0.0, rows=n_min))
    return (*steps, Step(kind="champion", share=1.0, time_s=0.0, rows=0))


def _forecast(plan: Plan, facts: Facts, timeout: timedelta | None) -> Plan:
    traffic = facts.traffic_per_day
    season, delay = plan.season_s / 86_400, (plan.label_delay_s or 0.0) / 86_400
    days, rows = None, None
    # Without any figure on the loss: a spread of five margins. The forecast says what it assumes; the test stays valid.
    sd = (facts.sd_diff if plan.paired else None) or facts.loss_sd or 5.0 * plan.margin
    thinning = 1.0
    if not plan.paired:
        share = max((step.share for step in plan.steps[:-1]), default=0.0)
        thinning = share * (1.0 - share)
    n_max = max(int(traffic * MIN_TIMEOUT.days * thinning), plan.n_min, 1)
    if traffic > 0 and thinning > 0:
        needed = rows_to_decide_paired(sd_diff=sd, margin=plan.margin, alpha=plan.alpha, n_max=n_max)
        rows = max(math.ceil(needed / thinning), plan.n_min)
        walk = sum(_step_days(step, plan.paired, traffic) for step in plan.steps[:-1])
        days = walk if plan.label_delay_s is None else max(walk, rows / traffic + delay, season + delay)
        days = days if math.isfinite(days) else None
    if timeout is not None:
        timeout_s = timeout.total_seconds()
    else:
        derived = timedelta(days=delay + season) + timedelta(days=min(days or 0.0, 10_000.0))
        timeout_s = min(max(derived, MIN_TIMEOUT), LONGEST).total_seconds()
    score_margin, score_v = None, 1.0
    if facts.score_mean and facts.score_sd:
        score_margin = 0.10 * abs(facts.score_mean)
        # Paired differences of scores spread less than the scores; a quarter of their variance tunes, not decides.
        score_v = planned_v(n_max, facts.score_sd**2 / 4.0)
    return replace(
        plan, forecast_days=days, deciding_rows=rows, timeout_s=timeout_s,
        v_opt=max(planned_v(n_max, sd * sd), 1e-12), score_margin=score_margin, score_v_opt=max(score_v, 1e-12),
    )  # fmt: skip


def _step_days(step: Step, paired: bool, traffic: float) -> float:
    per_day = traffic if paired or step.kind == "shadow" else traffic * step.share
    return max(step.time_s / 86_400, step.rows / per_day if per_day else math.inf)


def chosen_plan(settings: Settings, facts: Facts, *, alternative: bool = False) -> Plan:
    """The plan to start: the settings' own or, if it can't decide and `alternative` is allowed, the paired shadow.

    Raises: RolloutRefused with the plan that can decide, when the own one can't.
    """
    own = plan_rollout(settings, facts)
    if own.decides:
        return own
    reason = (
        "nothing was predicted in the last 7 days"
        if not facts.traffic_per_day
        else f"at {facts.traffic_per_day:,.0f} predictions a day this plan takes "
        + (f"about {own.forecast_days:,.0f} days" if own.forecast_days is not None else "for ever")
        + f", and its timeout is {own.timeout_s / 86_400:.0f} days"
    )
    other = None if settings.rollout.label_depends_on_answer else paired_shadow(settings, facts)
    if other is None or not other.decides or other.steps == own.steps:
        raise RolloutRefused(
            f"no plan can decide: {reason}. Wait for traffic, or go over without evidence: "
            'fairway deploy --finish --why "..."'
        )
    if alternative:
        return other
    raise RolloutRefused(
        f"{reason}. A paired shadow, then champion, can decide in about {other.forecast_days:.0f} days: "
        "set [rollout] shares = [] in fairway.toml, or start it with --paired-shadow"
    )
