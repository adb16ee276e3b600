"""Checks over what the evaluation found and over the tables: no code of the project runs for these."""

import re
from typing import Any

import polars as pl

from fairway.checks.result import CheckResult, failed, passed, skipped, too_few, unknown
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.training.evaluate import BASE_RATE, CHAMPION, Comparison, Evaluation
from fairway.training.metrics import METRICS

FEW_ROWS = 50
FEW_OF_A_CLASS = 10
FEW_AGAINST_CHAMPION = 200
NOT_WORSE_Z = -1.64  # METHODS 9
NOTHING_TO_EVALUATE = "the version could not be evaluated"


def parse_gate(text: str) -> tuple[str, float]:
    """(operator, number) of a gate like ">= 0.65" or "< 5%". Raises: ValueError.

    >>> parse_gate(">= 65%")
    ('>=', 0.65)
    """
    match = re.fullmatch(r"\s*(>=|<=|>|<)\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(%?)\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f'{text!r} is not a gate; write for example ">= 0.80"')
    return match[1], float(match[2]) / (100 if match[3] else 1)


def thin(evaluation: Evaluation) -> str | None:
    """Why the held-out rows are too few to judge by, or None."""
    if evaluation.n < FEW_ROWS:
        return f"only {evaluation.n} rows held back; {FEW_ROWS} needed"
    small = [(c, n) for c, n in zip(evaluation.classes, evaluation.class_rows, strict=False) if n < FEW_OF_A_CLASS]
    if small:
        name, n = small[0]
        return f"only {n} held-out rows of {name!r}; {FEW_OF_A_CLASS} needed"
    return None


def metric_gates(settings: Settings, evaluation: Evaluation | None, why: str = "") -> list[CheckResult]:
    """One "metric-gate-METRIC" for each [gates] entry: the value itself must hold, its interval is evidence."""
    results = []
    for metric, text in settings.gates.items():
        name = f"metric-gate-{metric}"
        if evaluation is None:
            results.append(unknown(name, why or NOTHING_TO_EVALUATE))
            continue
        estimate = evaluation.metrics.get(metric)
        if estimate is None:
            known = ", ".join(METRICS[settings.task])
            results.append(unknown(name, f"{metric} is not a metric of a {settings.task} task; known: {known}"))
            continue
        sign, wanted = parse_gate(text)
        evidence: dict[str, Any] = {"metric": metric, "wanted": f"{sign} {wanted:g}", "value": estimate.value,
                                    "low": estimate.low, "high": estimate.high, "rows": evaluation.n}  # fmt: skip
        reason = thin(evaluation)
        if estimate.value is None or reason:
            results.append(too_few(name, reason or f"{metric} can't be told: {estimate.why}", **evidence))
            continue
        held = {">=": estimate.value >= wanted, ">": estimate.value > wanted, "<=": estimate.value <= wanted,
                "<": estimate.value < wanted}[sign]  # fmt: skip
        span = f" ({estimate.low:.3f} to {estimate.high:.3f})" if estimate.low is not None else ""
        say = f"{metric} {estimate.value:.4f}{span} on {evaluation.n:,} rows; wanted {sign} {wanted:g}"
        results.append(passed(name, say, **evidence) if held else failed(name, say, **evidence))
    return results


def better_than_base_rate(evaluation: Evaluation | None, why: str = "") -> CheckResult:
    """Must know more than the share or mean of the training labels."""
    name = "better-than-base-rate"
    if evaluation is None:
        return unknown(name, why or NOTHING_TO_EVALUATE)
    against = evaluation.comparisons.get(BASE_RATE)
    if against is None:
        return unknown(name, "there is no base rate to compare with")
    gap = against.loss_difference
    evidence = {"loss": against.loss, "difference": gap.value, "low": gap.low, "high": gap.high, "rows": against.n}
    if reason := thin(evaluation):
        return too_few(name, reason, **evidence)
    if gap.value is None or gap.low is None or gap.high is None:
        return too_few(name, f"{against.loss} can't be compared: {gap.why}", **evidence)
    say = f"{against.loss} differs from the base rate's by {gap.value:+.4g} ({gap.low:+.4g} to {gap.high:+.4g})"
    if gap.high < 0:
        return passed(name, say, **evidence)
    known = "share of each answer" if against.loss in ("brier", "log_loss") else "average answer"
    return failed(name, f"{say}: it is not shown to know more than the {known}", **evidence)


def not_worse_than_champion(evaluation: Evaluation | None, champion: str | None, why: str = "") -> CheckResult:
    """Paired on rows that neither version was trained on (METHODS 6, 9). champion: its name, None without one."""
    name = "not-worse-than-champion"
    if champion is None:
        return skipped(name, "there is no champion yet")
    if evaluation is None:
        return unknown(name, why or NOTHING_TO_EVALUATE)
    against = evaluation.comparisons.get(CHAMPION)
    if against is None:
        return too_few(name, f"no rows are new to both this version and {champion}", champion=champion, rows=0)
    evidence = _paired(against) | {"champion": champion}
    if against.n < FEW_AGAINST_CHAMPION:
        say = f"only {against.n} rows are new to both this version and {champion}; {FEW_AGAINST_CHAMPION} needed"
        return too_few(name, say, **evidence)
    say = f"{against.loss} differs from {champion} by {against.loss_difference.value:+.4g} on {against.n:,} rows"
    say += f", z {against.z:.2f}"
    if against.z > NOT_WORSE_Z:
        return passed(name, say, **evidence)
    return failed(name, f"worse than {champion}: {say} (acts at {NOT_WORSE_Z})", **evidence)


def _paired(against: Comparison) -> dict[str, Any]:
    gap = against.loss_difference
    return {"loss": against.loss, "difference": gap.value, "low": gap.low, "high": gap.high, "rows": against.n,
            "z": against.z, "flips": against.flips}  # fmt: skip


def slices_not_worse(evaluation: Evaluation | None, champion: str | None, why: str = "") -> CheckResult:
    """No group of rows may be clearly worse off than with the champion (METHODS 6d)."""
    name = "slices-not-worse"
    if champion is None:
        return skipped(name, "there is no champion yet")
    if evaluation is None:
        return unknown(name, why or NOTHING_TO_EVALUATE)
    if evaluation.sliced_against != CHAMPION:
        return skipped(name, "no rows to compare slices with the champion on")
    against = [s["against"] for s in evaluation.slices if s["against"]]
    worse = [a for a in against if a["flagged"]]
    if not against:
        return skipped(name, "no slice has enough rows")
    if worse:
        first = worse[0]
        say = f"{first['name']} is worse than with {champion} by {first['diff']:.3f} ({first['n']:,} rows)"
        return failed(name, say, slices=worse)
    unsure = sum(not a["testable"] for a in against)
    return passed(name, f"{len(against)} slices, none flagged, {unsure} too small to tell", slices=len(against))


def contract_reviewed(contract: Contract) -> CheckResult:
    """Has a person read contract.toml? Never blocks below risk high, where it is asked."""
    name = "contract-reviewed"
    if contract.reviewed:
        return passed(name, f"reviewed; {len(contract.columns)} columns")
    assumed = {c.name: list(c.assumed) for c in contract.columns if c.assumed}
    holding = "1 column holds" if len(assumed) == 1 else f"{len(assumed)} columns hold"
    return skipped(name, f"not reviewed yet: {holding} assumptions", ask=True, assumed=assumed)


def rows_apart(contract: Contract, train: pl.DataFrame, heldout: pl.DataFrame) -> CheckResult:
    """No row of the held-out part may also be in training: the same entity, at the same `at` where there is one."""
    name = "train-heldout-apart"
    key = [c.name for c in (contract.by_role("entity"), contract.by_role("at")) if c and c.name in train.columns]
    entity = contract.by_role("entity")
    if entity is None or entity.name not in key:
        return skipped(name, "there is no entity column to tell rows apart by")
    shared = heldout.join(train.select(key).unique(), on=key, how="semi")
    if shared.is_empty():
        return passed(name, f"no {' and '.join(key)} of {heldout.height:,} held-out rows is in training")
    first = shared.row(0, named=True)
    shown = {k: str(first[k]) for k in key}
    named = ", ".join(f"{k} {v}" for k, v in shown.items())
    say = f"{shared.height:,} held-out rows are also in training, the first is {named}"
    return failed(name, say, rows=shared.height, first=shown)
