"""`fairway check`: the path up to its checks, without registering anything; or a version's checks once more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairway import clock
from fairway.checks.gate import judge
from fairway.checks.result import CheckResult
from fairway.contract.text import parse_contract, parse_settings
from fairway.data.project import Project, agree
from fairway.data.snapshot import load_dataset, source_events
from fairway.errors import UsageError
from fairway.path import judging, steps
from fairway.path.made import Judged, Made, Rows
from fairway.path.split import split
from fairway.path.train import train
from fairway.registry import show, versions
from fairway.runtime import package
from fairway.store.base import Row
from fairway.store.workspace import Workspace
from fairway.training.targets import encode


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """thing: the version, or the run that was made. verdict: the gate's, over the checks that were asked for."""

    thing: str
    verdict: versions.Verdict
    checks: tuple[CheckResult, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"thing": self.thing, "verdict": self.verdict, "checks": [check.as_dict() for check in self.checks]}


def check_project(
    project: Project, *, actor: str, seed: int = 0, only: tuple[str, ...] = (), say: steps.Say = lambda line: None
) -> CheckOutcome:
    """Data, code and gate of the project as it stands. What was made stays in the cache, so `train` need not repeat it.

    only: names of checks to report. Raises: as `train`; UsageError for an unknown check.
    """
    result = train(project, cause="check", actor=actor, seed=seed, say=say, register=False)
    return _outcome(result.run, result.checks, only, project)


def check_version(
    workspace: Workspace, model: str, version: int, project: Project, *, only: tuple[str, ...] = (), seed: int = 0
) -> CheckOutcome:
    """A version's checks once more, on the rows and the package that it was made from.

    project: where its code finds its folder; settings, contract and code are the package's own.
    Raises: ModelNotFound, VersionNotFound; UsageError for an unknown check, or when what its training left in the
    cache is gone; TamperFound.
    """
    row = versions.get(workspace.store, model, version)
    folder = package.materialise(workspace, row.artifact)
    settings = parse_settings((folder / "fairway.toml").read_text(encoding="utf-8"), file="fairway.toml")
    contract = agree(settings, parse_contract((folder / "contract.toml").read_text(encoding="utf-8"),
                                              file="contract.toml"))  # fmt: skip
    own = replace(project, settings=settings, contract=contract)
    run = show.run(workspace.store, row.run)
    lines = steps.Steps(workspace, lambda line: None)
    made = _made(lines, run["steps"], f"{model}@{version}")
    frame = load_dataset(workspace, str(row.dataset))
    target = contract.column(settings.target)
    series, classes = encode(frame[target.name], target, settings)
    started = clock.parse_iso(run["started_at"])
    rows = Rows(
        dataset=str(row.dataset), frame=frame, split=split(frame, settings), y=series.to_numpy(), classes=classes,
        events={name: source_events(own, name, now=started) for name in settings.sources}, scratch=lines.new_folder,
    )  # fmt: skip
    results = judging.checks(
        own, made, _judged(lines, run["steps"], row), rows, package=folder, run=f"{model}@{version}",
        log=workspace.dir("runs") / row.run / "log.txt", seed=seed, child=None,
    )  # fmt: skip
    return _outcome(f"{model}@{version}", results, only, own)


def _made(lines: steps.Steps, ran: list[dict[str, Any]], name: str) -> Made:
    key = next((step.get("key") for step in ran if step["name"] == "train"), None)
    result = lines.result(key) if key else None
    if key is None or result is None or not (lines.folder(key) / "outputs.npy").exists():
        raise UsageError(
            f"what the training of {name} left in .fairway/cache is gone, so its trained object can't be compared with "
            "its package; make it again with: fairway train (nothing changed registers nothing)"
        )
    return Made(key, lines.folder(key), result)


def _judged(lines: steps.Steps, ran: list[dict[str, Any]], row: Row) -> Judged:
    """The evaluation of its run, with the champion of that time."""
    key = next((step.get("key") for step in ran if step["name"] == "evaluate"), None) or ""
    found: Mapping[str, Any] = lines.result(key) or {"evaluation": row.metrics, "error": "", "champion_error": ""}
    champion = next((c["evidence"].get("champion") for c in row.checks if c["evidence"].get("champion")), None)
    return Judged.of(dict(found), key=key, champion=champion)


def _outcome(thing: str, results: tuple[CheckResult, ...], only: tuple[str, ...], project: Project) -> CheckOutcome:
    chosen = tuple(r for r in results if not only or any(r.name == o or r.name.startswith(f"{o}-") for o in only))
    if not chosen:
        raise UsageError(f"no check is named {', '.join(only)}; there are: {', '.join(r.name for r in results)}")
    return CheckOutcome(thing=thing, verdict=judge(chosen, risk=project.settings.risk).answer, checks=chosen)
