"""Every check refuses its faulty projects by name and lets the honest ones pass."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faulty"))

import faults
import pack

from fairway.checks import child, suite
from fairway.checks.gate import judge
from fairway.checks.loaded import Loaded
from fairway.checks.result import CheckResult
from fairway.errors import FairwayError
from fairway.training.trouble import sentence

SLOW = [fault for fault in faults.FAULTS if fault.process]
QUICK = [fault for fault in faults.FAULTS if not fault.process]


def run_here(given: suite.CheckInput, name: str) -> CheckResult:
    """One check, in this process: what it finds is the same, and a child costs a second."""
    if name not in child.names_for(given.contract, given.settings):
        return next(r for r in suite.run_checks(replace(given, only=(name,))) if r.name == name)
    subject = Loaded(given.package)
    try:
        return child.checks_of(subject, suite._material(given), classes=len(subject.classes))[name]()
    except Exception as error:
        return CheckResult(name=name, verdict="fail", summary=sentence(error))


@pytest.mark.parametrize("fault", QUICK, ids=lambda f: f"{f.check}: {f.name}")
def test_a_fault_is_refused_by_name(fault: faults.Fault, tmp_path: Path) -> None:
    result = run_here(fault.build(tmp_path / "p"), fault.check)
    assert (result.name, result.verdict) == (fault.check, "fail"), result.summary
    assert fault.says in result.summary, result.summary


def test_a_view_that_reads_the_future_is_refused(tmp_path: Path) -> None:
    fault = faults.views_from_file(tmp_path)
    result = run_here(fault.build(tmp_path / "p"), fault.check)
    assert result.verdict == "fail", result.summary
    assert "recent_delay" in str(result.evidence)


@pytest.mark.parametrize("fault", SLOW, ids=lambda f: f.name)
def test_a_crash_fails_its_check_and_the_rest_runs(fault: faults.Fault, tmp_path: Path) -> None:
    given = replace(fault.build(tmp_path / "p"), only=("package-reload", fault.check, "output-range"))
    results = {r.name: r for r in suite.run_checks(replace(given, limit=timedelta(seconds=5)))}
    assert results[fault.check].verdict == "fail"
    assert fault.says in results[fault.check].summary
    assert results["package-reload"].verdict == results["output-range"].verdict == "pass"
    assert results[fault.check].repeat == f"fairway check churn@1 --only {fault.check}"


@pytest.mark.parametrize("name", list(pack.HONEST))
def test_honest_projects_pass_every_check(name: str, tmp_path: Path) -> None:
    given = pack.build(pack.HONEST[name](), tmp_path / "p")
    results = suite.run_checks(given)
    wrong = [f"{r.name}: {r.verdict}: {r.summary}" for r in results if r.verdict not in ("pass", "skip")]
    assert not wrong, "\n".join(wrong)
    assert judge(results, risk="high").answer == "pass"
    assert {r.name for r in results} >= set(child.names_for(given.contract, given.settings))


def test_every_check_has_two_faults() -> None:
    counted: dict[str, int] = {}
    for fault in [*faults.FAULTS, faults.Fault("from a file", "views-point-in-time")]:
        counted[fault.check] = counted.get(fault.check, 0) + 1
    assert {name for name, n in counted.items() if n < 2} <= {"metric-gate-auc", "metric-gate-brier", "extreme-row"}


def test_a_package_that_cannot_be_loaded_is_said_once(tmp_path: Path) -> None:
    given = pack.build(pack.binary(), tmp_path / "p")
    pack.rebuild(
        given.package, lambda folder: (folder / "code" / "model.py").write_text("import nothing_like_it\n") and None
    )
    results = suite.run_checks(replace(given, only=("package-reload", "output-range")))
    by_name = {r.name: r.verdict for r in results}
    assert by_name == {"package-reload": "unknown", "output-range": "unknown"} | (
        {"package-load": "fail"} if "package-load" in by_name else {}
    )
    assert judge(results, risk="low").answer == "fail"


def test_a_changed_package_is_never_loaded(tmp_path: Path) -> None:
    given = pack.build(pack.binary(), tmp_path / "p")
    faults._flip_byte(given.package)
    with pytest.raises(FairwayError, match=r"trees\.bin"):
        Loaded(given.package)
