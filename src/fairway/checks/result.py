"""What a check says: a verdict, one sentence, and the evidence to judge it by."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "too_few", "unknown", "skip"]

# A replay must decide the same however fast the machine is.
NOT_REAL = "not judged: the clock is virtual"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check of one version.

    name: stable, kebab-case. verdict: pass, fail, too_few (ran, evidence too thin), unknown (did not run) or skip
    (nothing to compare, the summary says why). evidence: JSON: rows, columns and values. ask: a skip or a too_few
    that a person must see at risk high. repeat: the command that runs just this again.
    """

    name: str
    verdict: Verdict
    summary: str
    evidence: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    ask: bool = False
    repeat: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(value: dict[str, Any]) -> "CheckResult":
        """The inverse of `as_dict`."""
        return CheckResult(**value)


def passed(name: str, summary: str, **evidence: Any) -> CheckResult:
    return CheckResult(name=name, verdict="pass", summary=summary, evidence=evidence)


def failed(name: str, summary: str, **evidence: Any) -> CheckResult:
    return CheckResult(name=name, verdict="fail", summary=summary, evidence=evidence)


def too_few(name: str, summary: str, **evidence: Any) -> CheckResult:
    return CheckResult(name=name, verdict="too_few", summary=summary, evidence=evidence, ask=True)


def unknown(name: str, summary: str, **evidence: Any) -> CheckResult:
    return CheckResult(name=name, verdict="unknown", summary=summary, evidence=evidence)


def skipped(name: str, summary: str, *, ask: bool = False, **evidence: Any) -> CheckResult:
    return CheckResult(name=name, verdict="skip", summary=summary, evidence=evidence, ask=ask)
