"""The loop over a simulated log: rows enter through the fold's observers, labels through their table, time by hand."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.contract.columns import Column, Contract
from fairway.contract.settings import RetrainSettings, Settings
from fairway.data.fold import FoldedBatch
from fairway.data.project import Project
from fairway.errors import GateFailed, NotAllowed, Refused, RolloutRefused, UsageError, VersionNotFound
from fairway.fleet import defaults, loop, retrain, reviews
from fairway.fleet.jobs import judged_on_newest
from fairway.monitor import alarms, reference
from fairway.monitor.losses import Labels
from fairway.monitor.resolved import as_dict
from fairway.path.deploy import deploy
from fairway.rollout import asks, controller, traffic
from fairway.rollout.plan import Facts, plan_first, plan_rollout
from fairway.runtime.package import Manifest
from fairway.stats.assignment import assign
from fairway.store import jobs, schema
from fairway.store.base import jsonable
from fairway.store.workspace import Workspace

START = datetime(2014, 5, 1, tzinfo=UTC)
CONTRACT = Contract(columns=(Column(name="x", type="float"), Column(name="at", type="datetime", role="at")))
EVALUATION = {"n": 9_000, "metrics": {"accuracy": {"value": 0.83}}, "class_rows": [7_500, 1_500]}


class Loop:
    """One binary model whose world can be shuffled; the virtual clock is moved an hour at a time."""

    def __init__(self, workspace: Workspace, virtual: clock.VirtualClock, **settings: Any) -> None:
        self.workspace, self.store, self.virtual = workspace, workspace.store, virtual
        base: dict[str, Any] = {
            "name": "late", "task": "binary", "target": "late", "positive": "yes", "at": "at", "risk": "low",
            "label_delay": timedelta(hours=6), "owner": "ana",
        }  # fmt: skip
        self.settings = Settings(**{**base, **settings})
        self.random, self.rows, self.shuffled, self.shift = np.random.default_rng(0), 0, False, 0.0
        self.pending: list[dict[str, Any]] = []
        self.workers = [workspace]  # of several machines
        with self.store.write() as tx:
            row = {"model": "late", "settings": as_dict(self.settings), "created_at": START}
            tx.execute(sa.insert(schema.model).values(workspace="default", **row))

    @property
    def now(self) -> datetime:
        return clock.now()

    def version(self, number: int) -> None:
        days = [START - timedelta(days=28) + timedelta(minutes=36) * i for i in range(28 * 40)]
        frame = pl.DataFrame(
            {"x": self.random.normal(size=len(days)), "at": pl.Series(days, dtype=pl.Datetime("us", "UTC"))}
        )
        made = reference.build_reference(frame, at="at", contract=CONTRACT)
        blobs = self.workspace.blobs
        manifest = Manifest(
            model="late", task="binary", positive="yes", classes=("no", "yes"), feature_columns=(), views=(),
            contract="contract-1", runtime={}, environment={},
            files={"reference.json": blobs.put(fingerprint.canonical(made))},
        )  # fmt: skip
        with self.store.write() as tx:
            tx.execute(
                sa.insert(schema.version).values(
                    workspace="default", model="late", version=number, run=f"run-{number}",
                    artifact=blobs.put(manifest.to_bytes()), contract="contract-1", verdict="pass", metrics=EVALUATION,
                    checks=[], settings=as_dict(self.settings), author="ana", created_at=self.now, fairway="0",
                    format=1,
                )
            )  # fmt: skip
            reference.install(self.store, tx, model="late", contract="contract-1", version=number, reference=made)

    def start(self, number: int, **more: Any) -> str:
        self.version(number)
        with self.store.write() as tx:
            endpoint = traffic.endpoint(self.store, tx, "late")
            facts = Facts(traffic_per_day=480.0, sd_diff=0.03)
            plan = plan_first(self.settings) if endpoint is None else plan_rollout(self.settings, facts)
            return controller.start(
                self.store, tx, model="late", challenger=number, plan=plan, settings=self.settings,
                labels=Labels.of(self.settings), actor="ana", now=self.now, **more,
            )  # fmt: skip

    def endpoint(self) -> Any:
        with self.store.read() as tx:
            return traffic.need_endpoint(self.store, tx, "late")

    def hour(self, *, n: int = 20) -> None:
        row, fresh = self.endpoint(), []
        for i in range(n):
            at, unit = self.now + timedelta(hours=i / n), f"u{self.rows}"
            self.rows += 1
            arm = next(iter(row.shares)) if len(row.shares) == 1 else assign(unit, row.salt, row.shares)
            p = float(self.random.beta(2.8, 16.0))
            y = bool(self.random.random() < (0.15 if self.shuffled else p))
            answers = {
                str(v): {"role": "served", "status": "ok", "output": p, "latency_ms": 1.0}
                for v in {int(arm), *row.shadows}
            }
            fresh.append(
                {
                    "prediction": f"p-{unit}", "endpoint": "late", "model": "late", "at": at, "received_at": at,
                    "unit": unit, "rollout": row.rollout, "share_epoch": row.share_epoch, "arm": int(arm),
                    "propensity": row.shares[arm], "contract": "contract-1", "flags": [], "body": "b",
                    "answers": answers, "segment": "s", "y": y,
                }
            )  # fmt: skip
        self.virtual.move(self.now + timedelta(hours=1))
        self.pending += fresh
        with self.store.write() as tx:
            stored = [{k: v for k, v in p.items() if k != "y"} | {"workspace": "default"} for p in fresh]
            tx.execute(sa.insert(schema.prediction), stored)
            seen = [
                p | {"inputs": {"x": float(self.random.normal() + self.shift), "at": 0}, "looked_up": {}} for p in fresh
            ]
            for observe in loop.OBSERVERS:
                observe(self.store, tx, FoldedBatch(predictions=seen))
            due = [p for p in self.pending if p["at"] + timedelta(hours=4) <= self.now]
            self.pending = [p for p in self.pending if p["at"] + timedelta(hours=4) > self.now]
            labels = [
                {
                    "workspace": "default", "prediction": p["prediction"], "name": "late", "event": "e",
                    "value": "yes" if p["y"] else "no", "at": p["at"] + timedelta(hours=4), "received_at": self.now,
                    "matched": False,
                }
                for p in due
            ]  # fmt: skip
            if labels:
                tx.execute(sa.insert(schema.label), labels)
        self.settle()

    def tick(self) -> bool:
        if len(self.workers) == 1:
            return loop.tick(self.workspace, self.now)
        with ThreadPoolExecutor() as pool:
            with self.store.write():  # all see what is due before one of them may write
                ticks = [pool.submit(loop.tick, workspace, self.now) for workspace in self.workers]
                time.sleep(0.03)
            done = [tick.result() for tick in ticks]
            return any(done)

    def settle(self) -> None:
        for _ in range(20):
            if not self.tick():
                return
        raise AssertionError("the loop does not settle")

    def days(self, days: float) -> None:
        for _ in range(int(days * 24)):
            self.hour()

    def jobs(self, kind: str = "train") -> list[Any]:
        with self.store.read() as tx:
            return list(
                tx.execute(sa.select(schema.job).where(schema.job.c.kind == kind).order_by(schema.job.c.queued_at))
            )

    def finish_job(self, result: dict[str, Any]) -> None:
        claim = jobs.claim(self.store, owner="test", kinds=("train",))
        assert claim is not None
        with self.store.write() as tx:
            assert jobs.finish(self.store, tx, claim, result=result)
            retrain.after_training(self.store, tx, "late", claim.payload["cause"], result)

    def alarms(self) -> list[Any]:
        with self.store.read() as tx:
            return alarms.open_alarms(self.store, tx, model="late")

    def reviews(self) -> list[Any]:
        with self.store.read() as tx:
            return asks.open_reviews(self.store, tx)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    virtual = clock.VirtualClock(tmp_path / "clock", START)
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "clock"))
    workspace = Workspace.create(tmp_path)
    yield lambda **settings: Loop(workspace, virtual, **settings)
    workspace.store.close()


def test_a_good_model_lives_through_days_quietly(make: Any) -> None:
    world = make()
    rollout = world.start(1)
    world.days(6)
    with world.store.read() as tx:
        assert controller.find(world.store, tx, rollout).phase == "promoted"
        windows = tx.execute(sa.select(schema.window).order_by(schema.window.c.start_at)).all()
    assert [w.rows for w in windows] == [480] * 6
    assert all(w.closed_at is not None and w.performance["auc"]["value"] > 0.5 for w in windows[:4])
    assert [a for a in world.alarms() if a.severity == "alarm"] == [] and world.jobs() == []


def test_ticks_change_nothing_more(make: Any) -> None:
    world = make()
    world.start(1)
    world.days(2.5)
    assert [loop.tick(world.workspace, world.now) for _ in range(10)] == [False] * 10


def test_workers_of_two_machines_do_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for machines in (1, 2):
        folder = tmp_path / str(machines)
        folder.mkdir()
        virtual = clock.VirtualClock(folder / "clock", START)
        monkeypatch.setenv(clock.VARIABLE, str(virtual.path))
        workspace = Workspace.create(folder)
        world = Loop(workspace, virtual)
        world.workers = [workspace, *(Workspace.find(folder) for _ in range(machines - 1))]
        world.start(1)
        world.days(1)
        world.shift, world.shuffled = 2.0, True
        world.days(1.4)
        with world.store.read() as tx:
            tables = (schema.window, schema.monitor_state, schema.alarm, schema.look, schema.job)
            rows = [[dict(row._mapping) for row in tx.execute(sa.select(table))] for table in tables]
        assert rows[0] and rows[2]
        found.append([sorted(json.dumps(jsonable(row), sort_keys=True) for row in table) for table in rows])
        for one in world.workers:
            one.store.close()
    assert found[0] == found[1]


def test_shuffled_labels_alarm_and_retrain_and_two_failures_ask(make: Any) -> None:
    world = make()
    world.start(1)
    world.days(2)
    world.shuffled = True
    for _ in range(12 * 24):
        world.hour()
        if world.jobs():
            break
    (alarm,) = [a for a in world.alarms() if a.kind == "performance"]
    (job,) = world.jobs()
    assert job.payload == {"model": "late", "cause": alarm.alarm} and alarm.action["row"] == 4
    world.finish_job({"run": "run-2", "version": 2, "verdict": "fail", "failed": ["auc"]})
    (review,) = world.reviews()
    assert set(review.choices) == {"retrain", "keep", "rollback"} and review.evidence["failed"] == ["auc"]
    world.days(1.2)
    assert len(world.jobs()) == 2  # one per window, while the alarm holds
    world.finish_job({"run": "run-3", "version": 3, "verdict": "fail", "failed": ["auc"]})
    (review,) = world.reviews()
    assert review.evidence["row"] == 10 and review.evidence["failed_candidates"] == 2
    world.days(1.5)
    assert len(world.jobs()) == 2  # now it is a person's question
    reviews.answer(world.store, review.review, "keep", actor="ana", why="labels are broken")
    assert not [a for a in world.alarms() if a.alarm == alarm.alarm]


def test_age_retrains_once_per_period_and_a_passing_candidate_is_deployed(make: Any) -> None:
    world = make(retrain=RetrainSettings(every=timedelta(days=3)))
    world.start(1)
    world.days(2.9)
    assert world.jobs() == []
    world.days(0.3)
    (job,) = world.jobs()
    assert job.payload["cause"] == "schedule"
    world.days(0.5)
    assert len(world.jobs()) == 1
    world.finish_job({"run": "run-2", "version": 2, "verdict": "pass", "failed": []})
    (deployment,) = world.jobs("deploy")
    assert deployment.payload == {"model": "late", "version": 2, "cause": "schedule"}
    world.days(2)
    assert len(world.jobs()) == 1


def test_rollout_runs_within_the_loop_and_promotes(make: Any) -> None:
    world = make()
    world.start(1)
    world.days(2)
    rollout = world.start(2)
    world.days(7)
    with world.store.read() as tx:
        row = controller.find(world.store, tx, rollout)
    assert row.phase == "promoted", row.decision
    assert world.endpoint().champion == 2
    again = controller.recompute(world.store, rollout)
    assert again.equal
    with world.store.read() as tx:
        found = reference.installed(world.store, tx, "late", "contract-1")
    assert found is not None and found[0] == "2"


def test_inputs_that_move_are_a_notice_and_train_nothing(make: Any) -> None:
    world = make()
    world.start(1)
    world.days(2)
    world.shift = 1.0
    world.days(2.2)
    assert [(a.kind, a.subject) for a in world.alarms()] == [("drift", "x")]
    assert world.alarms()[0].action["row"] == 7 and world.jobs() == []


def test_approval_needs_another_person_and_a_reason(make: Any) -> None:
    world = make()
    world.start(1)
    world.days(2)
    rollout = world.start(2, waiting=True)
    with world.store.write() as tx:
        review = asks.open_review(
            world.store, tx, model="late", kind="approve", subject=rollout, question="late@2: approve?",
            evidence={"version": "late@2"}, choices={"approve": "begins", "reject": "ends"}, assignee="risk",
            not_by="ana", now=world.now,
        )  # fmt: skip
    with pytest.raises(NotAllowed, match="author"):
        reviews.answer(world.store, review, "approve", actor="ana", why="fine")
    with pytest.raises(NotAllowed, match="approver"):
        reviews.answer(world.store, review, "approve", actor="kim", why="fine", roles={"scientist"})
    with pytest.raises(UsageError, match="why"):
        reviews.answer(world.store, review, "approve", actor="kim", roles={"approver"})
    with pytest.raises(UsageError, match="choices"):
        reviews.answer(world.store, review, "perhaps", actor="kim", why="fine")
    assert world.endpoint().challenger is None
    reviews.answer(world.store, review, "approve", actor="kim", why="MC-212", roles={"approver"})
    assert world.endpoint().challenger == 2
    with pytest.raises(Refused, match="answered already"):
        reviews.answer(world.store, review, "reject", actor="kim", why="no")


def test_unanswered_reviews_take_the_cautious_answer_when_due(make: Any) -> None:
    world = make()
    world.start(1)
    with world.store.write() as tx:
        asks.open_review(
            world.store, tx, model="late", kind="retrain", subject="late", question="?", evidence={},
            choices=retrain.CHOICES, assignee="ana", now=world.now, due_at=world.now + timedelta(hours=2),
        )  # fmt: skip
    world.hour()
    assert len(world.reviews()) == 1
    world.hour()
    assert world.reviews() == []
    with world.store.read() as tx:
        row = tx.execute(sa.select(schema.review)).one()
    assert (row.answer, row.answered_by) == ("keep", "fairway")


def test_defaults_are_described_per_risk() -> None:
    found = defaults.describe()
    assert [d["risk"] for d in found] == ["low", "medium", "high"]
    assert json.loads(json.dumps(found)) == found and found[2]["rollout"]["approval"] != "none"


def nobody(path: str, body: bytes) -> tuple[int, bytes]:
    raise AssertionError("a forecast asks nothing of the gateway")


def test_deploy_forecasts_from_traffic_and_refuses_what_it_must(make: Any) -> None:
    world = make()
    world.start(1)
    world.version(2)
    with pytest.raises(RolloutRefused, match=r"no plan can decide.*--finish"):  # the first one's guard is no reason
        deploy(world.workspace, "late", 2, actor="ana", call=nobody)
    world.days(3)
    epoch = world.endpoint().epoch
    result = deploy(world.workspace, "late", actor="ana", call=nobody, forecast_only=True)
    assert (result.version, result.outcome, result.rollout) == (2, "forecast", None)
    assert "480 predictions a day" in result.lines[0] and "label delay" in result.lines[-1]
    assert result.plan["score_margin"] > 0 and json.loads(json.dumps(result.as_dict()))
    assert deploy(world.workspace, "late", actor="ana", call=nobody, dry_run=True).outcome == "dry run"
    assert world.endpoint().epoch == epoch
    with pytest.raises(RolloutRefused, match="champion already"):
        deploy(world.workspace, "late", 1, actor="ana", call=nobody)
    with pytest.raises(VersionNotFound):
        deploy(world.workspace, "late", 9, actor="ana", call=nobody)
    with world.store.write() as tx:
        failed = {"verdict": "fail", "checks": [{"name": "row-wise-features", "verdict": "fail"}]}
        tx.execute(sa.update(schema.version).where(schema.version.c.version == 2).values(**failed))
    with pytest.raises(GateFailed, match="row-wise-features"):
        deploy(world.workspace, "late", 2, actor="ana", call=nobody)


def test_retrain_is_judged_on_the_newest_labelled_rows(make: Any, tmp_path: Path) -> None:
    world = make()
    world.start(1)
    project = Project(tmp_path, world.settings, CONTRACT, world.workspace)
    assert judged_on_newest(project) == project  # no labels yet
    with world.store.write() as tx:
        row = {"workspace": "default", "dataset": "data-1", "blob": "b", "rows": 50_000, "columns": [], "origin": {}}
        tx.execute(sa.insert(schema.dataset).values(**row, created_at=START))
        tx.execute(sa.update(schema.version).values(dataset="data-1"))
    world.days(6)
    start = clock.parse_iso(judged_on_newest(project).settings.split.test_from or "")
    with world.store.read() as tx:
        table = schema.prediction
        held_out = tx.scalar(
            sa.select(sa.func.count()).select_from(table).where(table.c.label_at.is_not(None), table.c.at >= start)
        )
    assert held_out == 2_000
