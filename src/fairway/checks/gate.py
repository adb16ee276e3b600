"""From checks to one answer: may this version be deployed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fairway.checks.result import CheckResult
from fairway.contract.settings import Risk

Answer = Literal["pass", "fail", "ask"]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """pass, fail or ask (a person decides), with what blocks, what is asked and what is only worth a warning."""

    answer: Answer
    blocks: tuple[CheckResult, ...] = ()
    asks: tuple[CheckResult, ...] = ()
    warnings: tuple[CheckResult, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    @property
    def sentence(self) -> str:
        """Like "22 pass, 0 fail, 1 skip"."""
        return ", ".join(f"{n} {verdict}" for verdict, n in self.counts)


def judge(results: Sequence[CheckResult], *, risk: Risk) -> GateResult:
    """fail and unknown block at every risk: what did not run proves nothing. too_few, and a skip that asks, go to a
    person at risk high and are warnings below. No results at all block: nothing was checked.
    """
    blocks = tuple(r for r in results if r.verdict in ("fail", "unknown"))
    open_questions = tuple(r for r in results if r.verdict in ("too_few", "skip") and r.ask)
    counted = {
        verdict: sum(r.verdict == verdict for r in results)
        for verdict in ("pass", "fail", "too_few", "unknown", "skip")
    }
    counts = tuple((v, n) for v, n in counted.items() if n or v in ("pass", "fail"))
    if blocks or not results:
        return GateResult(answer="fail", blocks=blocks, warnings=open_questions, counts=counts)
    if open_questions and risk == "high":
        return GateResult(answer="ask", asks=open_questions, counts=counts)
    return GateResult(answer="pass", warnings=open_questions, counts=counts)


def gate(results: Sequence[CheckResult], risk: Risk) -> Answer:
    """Only the answer of `judge`."""
    return judge(results, risk=risk).answer
