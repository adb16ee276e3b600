"""Runs one claimed job of the loop, in the child process that the worker started for it."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.data.project import Project, project_of
from fairway.errors import FairwayError, LeaseLost, SourceHeld
from fairway.fleet import retrain, schedules
from fairway.monitor.resolved import settings_of
from fairway.path.deploy import Call, Wait, deploy
from fairway.path.served import served_call
from fairway.path.train import train
from fairway.rollout import asks, controller
from fairway.store import jobs, schema
from fairway.store.jobs import Claim
from fairway.store.steps import Job, attempt
from fairway.store.workspace import Workspace

ACTOR = "fairway"
NEWEST_ROWS, FEWEST_ROWS = 2_000, 500  # held-out rows of a retrain: enough for an AUC within 0.04


def known() -> frozenset[str]:
    """The kinds that this version of fairway can run."""
    return frozenset(("train", "deploy", *schedules.KINDS))


def run_job(workspace: Workspace, claim: Claim, *, call: Call | None = None, wait: Wait | None = None) -> bool:
    """Do the job and end it in the transaction that holds what follows from it.

    call, wait: how the served endpoint is reached (default: over HTTP, by `.fairway/serve.json`).
    Returns: False when the lease was lost meanwhile: then nothing was written, and another holder does it again.
    """
    store = workspace.store
    if claim.kind in schedules.KINDS:
        return schedules.run(workspace, claim)
    if claim.kind == "train":
        return attempt(store, claim, lambda: _train(workspace, claim))
    if claim.kind == "deploy":
        return attempt(store, claim, lambda: _deploy(workspace, claim, call or served_call(workspace), wait))
    with store.write() as tx:
        return jobs.finish(store, tx, claim, error=f"no job of kind {claim.kind!r} is known")


def _train(workspace: Workspace, claim: Claim) -> bool:
    store, model, cause = workspace.store, claim.payload["model"], claim.payload["cause"]
    found = _made_before(workspace, claim)
    if found is None:
        try:
            made = train(judged_on_newest(project_of(workspace, model)), cause=cause, actor=ACTOR)
        except SourceHeld as exc:
            found = {"run": None, "version": None, "verdict": retrain.HELD, "failed": [], "review": exc.review}
        except FairwayError as exc:
            if may_be_tried_again(claim, exc):
                raise
            found = {"run": None, "version": None, "verdict": "fail", "failed": [], "error": str(exc)}
        else:
            found = {
                "run": made.run,
                "version": made.version,
                # Without anything new, training gives the version that is there already: no candidate.
                "verdict": made.verdict if made.new else "same",
                "failed": [c.name for c in made.checks if c.verdict in ("fail", "unknown")],
            }
    with store.write() as tx:
        if not jobs.finish(store, tx, claim, result=found, error=found.get("error")):
            return False
        retrain.after_training(store, tx, model, cause, found)
        return True


def may_be_tried_again(claim: Claim, error: FairwayError) -> bool:
    """Whether the job goes back into the queue; at its last attempt a failure is an outcome, and a person is asked."""
    return isinstance(error, LeaseLost) or (jobs.worth_retry(error) and claim.attempts < claim.max_attempts)


def judged_on_newest(project: Project) -> Project:
    """The project with its newest labelled live rows as held-out rows (METHODS 9, gate of a candidate).

    A fixed share of a long history would judge a candidate mostly on rows from before what it is trained for, and keep
    the newest weeks from its training. A project without a time column, or with few live labels, stays as it is.
    """
    settings, store, table = project.settings, project.workspace.store, schema.prediction
    if settings.at is None or not settings.data.log:
        return project
    mine = sa.and_(
        table.c.workspace == store.workspace, table.c.endpoint == settings.name, table.c.label_at.is_not(None)
    )
    with store.read() as tx:
        labelled = int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine)) or 0)
        rows = int(
            tx.scalar(
                sa.select(schema.dataset.c.rows)
                .where(schema.dataset.c.workspace == store.workspace)
                .where(schema.dataset.c.dataset.in_(
                    sa.select(schema.version.c.dataset).where(
                        schema.version.c.workspace == store.workspace, schema.version.c.model == settings.name
                    )
                ))
                .order_by(schema.dataset.c.created_at.desc())
                .limit(1)
            )
            or 0
        )  # fmt: skip
        held_out = min(labelled, NEWEST_ROWS, int(settings.split.test_share * rows))
        if held_out < FEWEST_ROWS:
            return project
        start = tx.scalar(sa.select(table.c.at).where(mine).order_by(table.c.at.desc()).offset(held_out - 1).limit(1))
    split = replace(settings.split, test_from=None if start is None else clock.iso(start))
    return replace(project, settings=replace(settings, split=split))


def _made_before(workspace: Workspace, claim: Claim) -> dict[str, Any] | None:
    """What an earlier holder of this job registered before it died, so that one job makes one version."""
    if claim.fence < 2:
        return None
    store, run, version, job = workspace.store, schema.run, schema.version, schema.job
    with store.read() as tx:
        queued = tx.scalar(sa.select(job.c.queued_at).where(job.c.workspace == store.workspace, job.c.job == claim.job))
        row = tx.execute(
            sa.select(version)
            .join(run, sa.and_(run.c.workspace == version.c.workspace, run.c.run == version.c.run))
            .where(
                version.c.workspace == store.workspace, version.c.model == claim.payload["model"],
                run.c.cause == claim.payload["cause"], run.c.started_at >= queued,
            )
            .order_by(version.c.version.desc())
            .limit(1)
        ).first()  # fmt: skip
    if row is None:
        return None
    failed = [check["name"] for check in row.checks if check["verdict"] in ("fail", "unknown")]
    return {"run": row.run, "version": row.version, "verdict": row.verdict, "failed": failed}


def _deploy(workspace: Workspace, claim: Claim, call: Call, wait: Wait | None) -> bool:
    """The staging test and the start of the rollout; a refusal becomes a question with its reason.

    At risk high the rollout waits for a person, and the job with it: as a row, for as long as it takes.
    """
    store, model, version = workspace.store, claim.payload["model"], claim.payload["version"]
    job = Job(store, claim)
    try:
        begun = job.step("rollout", [model, version], lambda: _begin(workspace, claim, call, wait))
    except FairwayError as exc:
        if may_be_tried_again(claim, exc):
            raise
        return _not_deployed(workspace, claim, str(exc))
    review = begun["review"]
    if review is not None:
        said = job.wait(asks.answered(review), known=lambda tx: asks.answer_of(store, tx, review))
        begun["answer"] = said["answer"]
    with store.write() as tx:
        return jobs.finish(store, tx, claim, result=begun)


def _begin(workspace: Workspace, claim: Claim, call: Call, wait: Wait | None) -> dict[str, Any]:
    store, model, version = workspace.store, claim.payload["model"], claim.payload["version"]
    with store.read() as tx:
        open_ = controller.open_rollout(store, tx, model)
        if open_ is not None and open_.challenger == version:  # by an earlier attempt, whose process died
            asked = asks.open_reviews(store, tx, model=model, kind="approve", subject=open_.rollout)
            return {
                "rollout": open_.rollout,
                "outcome": "waiting" if asked else "started",
                "review": asked[0].review if asked else None,
            }
    done = deploy(workspace, model, version, actor=ACTOR, call=call, wait=wait, paired_shadow=True)
    return {"rollout": done.rollout, "outcome": done.outcome, "review": done.review}


def _not_deployed(workspace: Workspace, claim: Claim, error: str) -> bool:
    store, model, version = workspace.store, claim.payload["model"], claim.payload["version"]
    with store.write() as tx:
        if not jobs.finish(store, tx, claim, result={"rollout": None, "outcome": "refused"}, error=error):
            return False
        settings = settings_of(store, tx, model, version)
        now = clock.now()
        asks.open_review(
            store, tx, model=model, kind="retrain", subject=f"{model}@{version}",
            question=f"{model}@{version} could not be deployed: {error} What now?",
            evidence={"version": version, "error": error, "cause": claim.payload["cause"]},
            choices={"deploy": "try again", "retrain": retrain.CHOICES["retrain"], "keep": "leave it"},
            assignee=settings.owner, now=now, due_at=now + retrain.ANSWER_IN,
        )  # fmt: skip
        return True
