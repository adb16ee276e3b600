"""One look at a rollout: stored sums in, decision out (METHODS 1f). Pure, so that any look can be recomputed.

Order: sample ratio -> guardrails -> shift of the score -> primary -> timeout -> step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from fairway import clock
from fairway.rollout.plan import BURN_IN, SRM_BAR, STEP_BAR, Plan, Step
from fairway.rollout.state import Decision, Phase
from fairway.stats.means import (
    MeanScore,
    MeanStratum,
    confidence_sequence,
    mixture_rho,
    noninferiority_log_e,
    paired_score,
    radius,
    score,
)
from fairway.stats.rates import RateStratum, rate_log_e, ratio_confidence_sequence
from fairway.stats.srm import srm_log_e_over_epochs

CHAMPION, CHALLENGER, PAIRED = "champion", "challenger", "paired"


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Sums of one metric, share epoch and arm. first, last: starts of the first and last hour with rows.

    share: the challenger's; 0.5 where both versions answered the same rows.
    """

    metric: str
    share_epoch: int
    arm: str
    share: float
    n: int
    sum: float
    sumsq: float
    first: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where the rollout stands at a look. step_epoch: share epoch of the step; held: rules that wait for a person;
    waived: rules that a person has answered with "continue"."""

    now: datetime
    phase: str
    step: int
    step_at: datetime
    step_epoch: int
    deadline_at: datetime | None
    held: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        times = {
            "now": clock.iso(self.now),
            "step_at": clock.iso(self.step_at),
            "deadline_at": None if self.deadline_at is None else clock.iso(self.deadline_at),
        }
        return {**asdict(self), **times, "held": list(self.held), "waived": list(self.waived)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Moment":
        """Inverse of `as_dict`."""
        deadline = data["deadline_at"]
        times = {
            "now": clock.parse_iso(data["now"]),
            "step_at": clock.parse_iso(data["step_at"]),
            "deadline_at": None if deadline is None else clock.parse_iso(deadline),
        }
        return cls(**{**data, **times, "held": tuple(data["held"]), "waived": tuple(data["waived"])})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a look. checks: every test with its numbers. step_to: the step to go on to, if any."""

    decision: Decision
    rule: str
    text: str
    checks: tuple[dict[str, Any], ...]
    step_to: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form: what `look.decision` and `rollout.decision` hold."""
        return {**asdict(self), "decision": self.decision.value, "checks": list(self.checks)}


def judge(plan: Plan, sums: Sequence[Sum], moment: Moment) -> Verdict:
    """One look. The same sums, plan and moment always give the same verdict."""
    checks: list[dict[str, Any]] = []
    counts = _counts(plan, sums, moment)
    verdict = Verdict(decision=Decision.CONTINUE, rule="wait", text="", checks=())

    def done(decision: Decision, rule: str, text: str, step_to: int | None = None) -> Verdict:
        if decision is Decision.ASK and rule in moment.held:
            decision, text = Decision.CONTINUE, f"waiting for a person: {text}"
        return replace(
            verdict, decision=decision, rule=rule, text=text, checks=(*checks, counts), step_to=step_to
        )  # fmt: skip

    if not plan.first and moment.phase == Phase.RUNNING:
        checks.append(_srm(sums))
        if checks[-1]["fired"] and "srm" not in moment.waived:
            return done(
                Decision.ASK, "srm", "units are not split as the shares say, so no comparison here can be believed"
            )
    guards = [_guardrail(plan, name, sums, moment) for name in plan.guardrails]
    checks.extend(guards)
    for guard in guards:
        if guard["fired"]:
            return done(Decision.ROLLBACK, guard["name"], guard["text"])
    if moment.phase == Phase.GUARDING:
        over = moment.now >= moment.step_at + timedelta(seconds=plan.guard_s)
        return done(
            Decision.PROMOTE if over else Decision.CONTINUE, "guard", "no harm shown" + (" in the guard time" * over)
        )

    shift = _shift(plan, sums)
    if shift is not None:
        checks.append(shift)
        if shift["fired"] and "score" not in moment.waived:
            return done(Decision.ASK, "score", shift["text"])
    primary = _primary(plan, sums)
    checks.append(primary)

    step, last = plan.steps[moment.step], moment.step == len(plan.steps) - 2
    calm = all(guard["log_e"] <= STEP_BAR for guard in guards)
    ready = _ready(step, plan, counts, moment) and calm
    if last and ready and primary["passed"] and primary["n"] >= plan.n_min and primary["season_seen"]:
        return done(Decision.PROMOTE, "primary", primary["text"])
    if last and ready and plan.label_delay_s is None and "no labels" not in moment.waived:
        return done(Decision.ASK, "no labels", "no harm shown; whether it is as good can't be told without labels")
    if moment.deadline_at is not None and moment.now >= moment.deadline_at and "timeout" not in moment.waived:
        low = primary["low"]
        if low is not None and low > -2.0 * plan.margin:
            return done(Decision.ASK, "timeout", "undecided in its time; no harm shown")
        return done(Decision.ROLLBACK, "timeout", f"undecided in its time; a loss of {2 * plan.margin:g} is possible")
    if ready and not last:
        following = plan.steps[moment.step + 1]
        return done(Decision.CONTINUE, "step", f"{step} done, {following} next", step_to=moment.step + 1)
    return done(Decision.CONTINUE, "wait", f"{step}: {_missing(step, counts, moment, calm)}")


def _counts(plan: Plan, sums: Sequence[Sum], moment: Moment) -> dict[str, Any]:
    """Requests per arm, in all and in this step."""
    totals = dict.fromkeys((CHAMPION, CHALLENGER, PAIRED), 0)
    here = dict(totals)
    for s in sums:
        if s.metric == "requests":
            totals[s.arm] = totals.get(s.arm, 0) + s.n
            if s.share_epoch == moment.step_epoch:
                here[s.arm] = here.get(s.arm, 0) + s.n
    both = plan.paired or plan.steps[moment.step].kind == "shadow"
    return {
        "name": "requests", "fired": False, **{f"n_{arm}": n for arm, n in totals.items()},
        "n_step": here[PAIRED if both else CHALLENGER],
    }  # fmt: skip


def _ready(step: Step, plan: Plan, counts: Mapping[str, Any], moment: Moment) -> bool:
    return bool(moment.now >= moment.step_at + timedelta(seconds=step.time_s) and counts["n_step"] >= step.rows)


def _missing(step: Step, counts: Mapping[str, Any], moment: Moment, calm: bool) -> str:
    wants = []
    if counts["n_step"] < step.rows:
        wants.append(f"{counts['n_step']:,} of {step.rows:,} predictions")
    end = moment.step_at + timedelta(seconds=step.time_s)
    if moment.now < end:
        wants.append(f"until {clock.iso(end)}")
    if not calm:
        wants.append("a guardrail's evidence is above 3")
    return ", ".join(wants) or "the primary metric is not decided yet"


def _srm(sums: Sequence[Sum]) -> dict[str, Any]:
    epochs: dict[int, tuple[list[int], list[float]]] = {}
    for s in sums:
        if s.metric == "assigned" and 0.0 < s.share < 1.0:
            counts, _ = epochs.setdefault(s.share_epoch, ([0, 0], [s.share, 1.0 - s.share]))
            counts[s.arm == CHAMPION] += s.n
    log_e = float(srm_log_e_over_epochs(epochs.values()))
    units = {str(epoch): counts for epoch, (counts, _) in sorted(epochs.items())}
    return {"name": "srm", "log_e": _finite(log_e), "bar": SRM_BAR, "fired": log_e >= SRM_BAR, "units": units}


def _guardrail(plan: Plan, name: str, sums: Sequence[Sum], moment: Moment) -> dict[str, Any]:
    bar = math.log(1.0 / plan.alpha_guardrail)
    mine = [s for s in sums if s.metric == name]
    if plan.first:
        return _absolute(plan, name, mine, sums, bar)
    if moment.phase == Phase.GUARDING:
        mine = [s for s in mine if s.share_epoch == moment.step_epoch]
    # Equal shares pool exactly: the likelihood needs only the events per share.
    events: dict[tuple[int, float], list[int]] = {}
    rows = {CHAMPION: 0, CHALLENGER: 0}
    for s in mine:
        pair = events.setdefault((s.share_epoch, s.share), [0, 0])
        pair[s.arm == CHAMPION] += round(s.sum)
        rows[s.arm] += s.n
    strata = [RateStratum(n1, n0, share) for (_, share), (n1, n0) in sorted(events.items()) if 0.0 < share < 1.0]
    log_e = rate_log_e(strata)
    n1, n0 = sum(s.n1 for s in strata), sum(s.n0 for s in strata)
    low, high = ratio_confidence_sequence(strata)
    fired = log_e >= bar
    what = "failed predictions" if name == "errors" else "slow answers"
    return {
        "name": name, "log_e": log_e, "bar": bar, "fired": fired, "n1": n1, "n0": n0,
        "rows1": rows[CHALLENGER], "rows0": rows[CHAMPION], "low": _finite(low), "high": _finite(high),
        "text": f"{what}: {n1:,} of {rows[CHALLENGER]:,} in the challenger, {n0:,} of {rows[CHAMPION]:,} in the "
        f"champion; evidence {math.exp(min(log_e, 50.0)):,.0f}, acts at {math.exp(bar):,.0f}",
    }  # fmt: skip


def _absolute(plan: Plan, name: str, mine: Sequence[Sum], sums: Sequence[Sum], bar: float) -> dict[str, Any]:
    """Events against a fixed rate: under the limit a unit is an event with at most that probability, which is 1b with
    the limit as share and the units without an event as the other arm."""
    limit = plan.max_errors if name == "errors" else 0.01
    events = round(sum(s.sum for s in mine))
    units = max(sum(s.n for s in sums if s.metric == "assigned"), events)
    log_e = rate_log_e([RateStratum(events, units - events, limit)])
    what = "errors" if name == "errors" else f"answers slower than {plan.max_ms:g} ms"
    return {
        "name": name, "log_e": log_e, "bar": bar, "fired": log_e >= bar, "n1": events, "rows1": units, "limit": limit,
        "text": f"{events:,} {what} among {units:,} unit{'s' * (units != 1)}; {limit * 100:g} % may be",
    }  # fmt: skip


def _shift(plan: Plan, sums: Sequence[Sum]) -> dict[str, Any] | None:
    """Mean prediction, two-sided: fired when it has certainly moved by more than the margin."""
    if plan.score_margin is None:
        return None
    s = _paired(sums, "score")
    rho = mixture_rho(plan.score_v_opt, plan.alpha, sided="two")
    _, low, high = confidence_sequence(s, rho, plan.alpha)
    fired = s.W >= BURN_IN and (low > plan.score_margin or high < -plan.score_margin)
    effect = s.effect if s.W else None
    return {
        "name": "score", "fired": fired, "n": int(s.W), "effect": effect, "low": _finite(low), "high": _finite(high),
        "margin": plan.score_margin,
        "text": f"the mean prediction moved by {effect or 0.0:+.4g}"
        + (", more than 10 % of the champion's; a better model may do that" if fired else ""),
    }  # fmt: skip


def _paired(sums: Sequence[Sum], metric: str) -> MeanScore:
    mine = [s for s in sums if s.metric == metric and s.arm == PAIRED]
    return paired_score(sum(s.n for s in mine), math.fsum(s.sum for s in mine), math.fsum(s.sumsq for s in mine))


def _primary(plan: Plan, sums: Sequence[Sum]) -> dict[str, Any]:
    """Non-inferiority of the negated loss, paired or by arms."""
    metric = "primary_paired" if plan.paired else "primary"
    mine = [s for s in sums if s.metric == metric]
    if plan.paired:
        s = _paired(sums, metric)
        n, burnt_in = int(s.W), s.W >= BURN_IN
    else:
        s = score(_strata(mine))
        n1, n0 = (sum(x.n for x in mine if x.arm == arm) for arm in (CHALLENGER, CHAMPION))
        n, burnt_in = min(n1, n0), min(n1, n0) >= BURN_IN
        if plan.loss == "zero_one":
            wrong = -math.fsum(x.sum for x in mine)
            burnt_in = burnt_in and 20 <= wrong <= n1 + n0 - 20
    bar = math.log(1.0 / plan.alpha)
    rho = mixture_rho(plan.v_opt, plan.alpha, sided="one")
    log_e = noninferiority_log_e(s, margin=plan.margin, rho=rho) if s.W else 0.0
    reach = radius(s.v, mixture_rho(plan.v_opt, plan.alpha, sided="two"), plan.alpha)
    low, high = ((s.S - reach) / s.W, (s.S + reach) / s.W) if s.W else (None, None)
    times = [clock.parse_iso(t) for x in mine for t in (x.first, x.last)]
    seen = (max(times) - min(times) + timedelta(hours=1)).total_seconds() if times else 0.0
    passed = burnt_in and log_e >= bar
    effect = s.S / s.W if s.W else None
    return {
        "name": "primary", "fired": False, "passed": passed, "log_e": log_e, "bar": bar, "n": n, "effect": effect,
        "low": low, "high": high, "margin": plan.margin, "season_seen": seen >= plan.season_s,
        "text": f"{plan.loss}: {-(effect or 0.0):+.4g} against the champion on {n:,} labelled predictions"
        + (f": not worse by more than {plan.margin:g}" if passed else f"; {plan.margin:g} would be too much"),
    }  # fmt: skip


def _strata(mine: Sequence[Sum]) -> list[MeanStratum]:
    arms: dict[tuple[int, str], dict[str, Sum]] = {}
    for s in mine:
        arms.setdefault((s.share_epoch, s.first), {})[s.arm] = s
    empty = (0, 0.0, 0.0)
    result = []
    for _, pair in sorted(arms.items()):
        one, zero = pair.get(CHALLENGER), pair.get(CHAMPION)
        result.append(
            MeanStratum(
                *((one.n, one.sum, one.sumsq) if one else empty), *((zero.n, zero.sum, zero.sumsq) if zero else empty)
            )
        )
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
