"""`fairway deploy`: tests a version on a staging endpoint over HTTP, then starts its rollout. It never trains.

The rollout itself is the loop's: this returns when the first step has begun.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.checks.endpoint import endpoint_test
from fairway.checks.result import CheckResult
from fairway.contract.settings import Settings
from fairway.data.project import project_of
from fairway.errors import GateFailed, ModelNotFound, ProjectNotFound, RolloutRefused, Unfinished
from fairway.monitor import reference
from fairway.monitor.losses import Labels
from fairway.monitor.resolved import settings_from, version_row
from fairway.path.facts import gather
from fairway.rollout import asks, controller, traffic
from fairway.rollout.plan import Facts, Plan, chosen_plan, plan_first, plan_rollout
from fairway.runtime.package import materialise, read_manifest
from fairway.store import audit, schema
from fairway.store.base import Row, Store
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

Call = Callable[[str, bytes], tuple[int, bytes]]
Wait = Callable[[str, int], object]
Outcome = Literal["forecast", "dry run", "live", "started", "waiting"]

ACTIVATION_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DeployResult:
    """lines: what to tell a person. checks: of the staging endpoint. plan, rollout: None before the start.

    outcome: live (a first version), started, waiting (for an approval: review), or, when nothing was started, forecast
    or dry run.
    """

    model: str
    version: int
    outcome: Outcome
    lines: tuple[str, ...]
    plan: dict[str, Any]
    checks: tuple[CheckResult, ...] = ()
    rollout: str | None = None
    review: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**vars(self), "lines": list(self.lines), "checks": [c.as_dict() for c in self.checks]}


def deploy(
    workspace: Workspace,
    model: str,
    version: int | None = None,
    *,
    actor: str,
    call: Call,
    wait: Wait | None = None,
    forecast_only: bool = False,
    dry_run: bool = False,
    paired_shadow: bool = False,
    past: str | None = None,
) -> DeployResult:
    """Bring a version (default: the newest) before the traffic of its model.

    call(path, body) posts to the served gateway. wait(endpoint, epoch) returns when that epoch is active everywhere, or
    with the names of the gateways that have not followed (default: `store.gateways.wait_active`). paired_shadow: when
    the version's own plan can't decide at this traffic, take the one that can. past: a person's reason to make it
    champion after the staging test, past what no traffic has shown; not at risk high.
    Raises: VersionNotFound, ModelNotFound; GateFailed when the gate or the staging test says no; RolloutRefused when it
    is champion, when a rollout is open, or when no plan can decide; Unfinished when a gateway does not follow.
    """
    store, now = workspace.store, clock.now()
    follow: Wait = wait or (lambda endpoint, epoch: wait_active(workspace, endpoint, epoch, timeout_s=ACTIVATION_S))
    with store.read() as tx:
        number = version if version is not None else _newest(store, tx, model)
        row = version_row(store, tx, model, number)
        _may_start(store, tx, row)
        settings = _settings(workspace, row)
        labels = Labels.of(settings, read_manifest(workspace.blobs.get(row.artifact)).classes)
        champion = _champion(store, tx, model)
        facts, cap = Facts(traffic_per_day=0.0), None
        if champion is not None:
            facts, cap = gather(
                store,
                tx,
                model=model,
                champion=champion,
                settings=settings,
                labels=labels,
                metrics=row.metrics,
                now=now,
            )
    if past is not None and settings.risk == "high":
        raise RolloutRefused(f"{model} has risk high: it goes live by approval, not past it")
    if champion is None:
        plan = plan_first(settings, judge_latency=not clock.is_virtual())
    elif past is not None:
        plan = plan_rollout(settings, facts)
    else:
        plan = chosen_plan(settings, facts, alternative=paired_shadow)
    result = DeployResult(
        model=model, version=number, outcome="forecast", lines=tuple(plan.lines()), plan=plan.as_dict()
    )
    if forecast_only or dry_run:
        return result if forecast_only else _with(result, outcome="dry run")

    folder = materialise(workspace, row.artifact)
    checks = _staging_test(workspace, model, number, folder, call, follow, actor)
    bad = [check for check in checks if check.verdict in ("fail", "unknown")]
    if bad:
        raise GateFailed(
            f"{model}@{number} failed its staging test: " + "; ".join(f"{c.name}: {c.summary}" for c in bad)
        )
    made = json.loads((folder / "reference.json").read_bytes())
    review = None
    with store.write() as tx:
        reference.install(store, tx, model=model, contract=row.contract, version=number, reference=made)
        rollout = controller.start(
            store, tx, model=model, challenger=number, plan=plan, settings=settings, labels=labels, actor=actor,
            now=clock.now(), waiting=settings.risk == "high", loss_cap=cap,
        )  # fmt: skip
        if past is not None and not plan.first:
            begun = controller.find(store, tx, rollout)
            controller.finish_row(store, tx, begun, why=past, actor=actor, now=clock.now())
        if settings.risk == "high":
            review = _ask_approval(store, tx, row, rollout, plan, settings)
        endpoint = traffic.endpoint(store, tx, model)
        epoch = endpoint.epoch if endpoint is not None else None
    if review is not None:
        lines = (*result.lines, f"{rollout} waits for approval: fairway answer {review} approve --why ...")
        return _with(result, outcome="waiting", rollout=rollout, review=review, checks=checks, lines=lines)
    if epoch is not None:
        _wait(follow, model, epoch)
    live = plan.first or past is not None
    said = _said(model, number, plan, rollout, live=live)
    return _with(
        result, outcome="live" if live else "started", rollout=rollout, checks=checks,
        lines=(*result.lines, *said),
    )  # fmt: skip


def _with(result: DeployResult, **values: Any) -> DeployResult:
    return DeployResult(**{**vars(result), "checks": tuple(values.pop("checks", result.checks)), **values})


def _said(model: str, version: int, plan: Plan, rollout: str, *, live: bool) -> list[str]:
    if live:
        return [f"live: 100 % of the traffic; {model}@{version} is the champion, in its guard time"]
    return [f"{rollout}: {plan.steps[0]} has begun. Watch it: fairway deploy {model}@{version} --watch"]


def _newest(store: Store, tx: Connection, model: str) -> int:
    table = schema.version
    found: int | None = tx.scalar(
        sa.select(sa.func.max(table.c.version)).where(table.c.workspace == store.workspace, table.c.model == model)
    )
    if found is None:
        known = tx.scalars(sa.select(table.c.model).where(table.c.workspace == store.workspace).distinct()).all()
        raise ModelNotFound(model, known=sorted(known))
    return found


def _champion(store: Store, tx: Connection, model: str) -> int | None:
    row = traffic.endpoint(store, tx, model)
    return row.champion if row is not None and row.state == traffic.LIVE else None


def _may_start(store: Store, tx: Connection, row: Row) -> None:
    name = f"{row.model}@{row.version}"
    if row.verdict == "fail":
        failed = [check["name"] for check in row.checks if check["verdict"] in ("fail", "unknown")]
        raise GateFailed(f"{name} may not be deployed: {', '.join(failed) or 'its gate'} failed")
    if _champion(store, tx, row.model) == row.version:
        raise RolloutRefused(f"{name} is the champion already")
    current = controller.open_rollout(store, tx, row.model)
    if current is not None and not controller.is_first_guard(current):
        raise RolloutRefused(
            f"{current.rollout} of {row.model}@{current.challenger} is {current.phase}; wait for it, or end it with: "
            f"fairway rollback {row.model}"
        )


def _settings(workspace: Workspace, row: Row) -> Settings:
    """The version's own settings, but how it rolls out as fairway.toml says now: that was not part of training."""
    made = settings_from(row.settings)
    try:
        today = project_of(workspace, row.model).settings
    except (ProjectNotFound, ModelNotFound):
        return made  # the project is elsewhere; the version is not
    return Settings(**{**vars(made), "rollout": today.rollout, "risk": today.risk, "owner": today.owner})


def _staging_test(
    workspace: Workspace, model: str, version: int, folder: Any, call: Call, wait: Wait, actor: str
) -> list[CheckResult]:
    """Serve the candidate on `{model}.staging`, ask it over HTTP, and take the endpoint away again."""
    store, name = workspace.store, model + traffic.STAGING
    with store.write() as tx:
        epoch = traffic.change(
            store, tx, name, actor=actor, action="staging.open", now=clock.now(), model=model, champion=version,
            shares=traffic.all_to(version), shadows=[], rollout=None, state=traffic.LIVE,
        )  # fmt: skip
    try:
        _wait(wait, name, epoch)
        return list(endpoint_test(call, name, folder, 0))
    finally:
        with store.write() as tx:
            traffic.change(
                store, tx, name, actor=actor, action="staging.close", now=clock.now(), shares={}, champion=None,
                state=traffic.RETIRED,
            )  # fmt: skip


def _ask_approval(store: Store, tx: Connection, row: Row, rollout: str, plan: Plan, settings: Settings) -> str:
    """Risk high: another person than the author lets the rollout begin."""
    counts: dict[str, int] = {}
    for check in row.checks:
        counts[check["verdict"]] = counts.get(check["verdict"], 0) + 1
    name = f"{row.model}@{row.version}"
    audit.record(store, tx, actor=row.author, action="rollout.wait", subject=rollout, version=name)
    return asks.open_review(
        store, tx, model=row.model, kind="approve", subject=rollout, question=f"{name}: approve for production?",
        evidence={"version": name, "gate": counts, "plan": plan.lines(), "run": row.run},
        choices={"approve": f"{rollout} begins", "reject": f"{rollout} ends; nothing was moved"},
        assignee=settings.owner, not_by=row.author, now=clock.now(),
    )  # fmt: skip


def _wait(wait: Wait, endpoint: str, epoch: int) -> None:
    """Raises: Unfinished, naming the gateways that have not activated the epoch."""
    behind = wait(endpoint, epoch)
    if isinstance(behind, list) and behind:
        raise Unfinished(
            f"{endpoint} is changed in the store (epoch {epoch}); not active yet on {', '.join(behind)}, which "
            "go on with what they had; see: fairway status"
        )
