"""A workspace filled through the real tables: one model with a history, so that every page has something to show."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from fairway import clock
from fairway.contract.settings import Settings
from fairway.rollout.decide import Moment, Sum, judge
from fairway.rollout.plan import Facts, plan_rollout
from fairway.rollout.state import Phase
from fairway.store import audit, schema
from fairway.store.workspace import Workspace

T0 = datetime(2026, 3, 2, tzinfo=UTC)
SETTINGS = Settings(
    name="late-flights",
    task="binary",
    target="late",
    positive="true",
    entity="flight_id",
    at="decide_at",
    label_delay=timedelta(hours=6),
    owner="ops@example.com",
)
CHECKS = [
    {"name": "row-wise-features", "verdict": "pass", "summary": "the same alone and in subsets", "evidence": {}},
    {"name": "native-runtime", "verdict": "pass", "summary": "equal to 4e-16 on 1,377 rows", "evidence": {}},
    {"name": "not-worse-than-champion", "verdict": "skip", "summary": "there is no champion yet", "evidence": {}},
    {
        "name": "latency",
        "verdict": "fail",
        "summary": "one row takes 210 ms; 100 ms are allowed",
        "evidence": {"p99_ms": 210.0, "rows": [{"row": 3, "ms": 211.0}, {"row": 9, "ms": 209.5}]},
    },
]


def fill(root: Path, *, now: datetime | None = None) -> Workspace:
    """A workspace at `root` with two versions, a decided and a running rollout, windows, an alarm and two reviews."""
    workspace = Workspace.create(root)
    now = now or T0 + timedelta(days=20)
    store = workspace.store
    name = {"workspace": store.workspace}
    with store.write() as tx:
        settings = {"owner": "ops@example.com", "risk": "medium", "task": "binary", "label_delay": "6h"}
        add = lambda table, **row: tx.execute(sa.insert(table).values(**name, **row))  # noqa: E731
        add(schema.model, model="late-flights", project_path=str(root), settings=settings, created_at=T0)
        add(
            schema.model,
            model="churn",
            project_path=str(root),
            settings={**settings, "label_delay": None, "owner": None},
            created_at=T0,
        )
        for number, auc in ((1, 0.642), (2, 0.658), (3, 0.655)):
            _version(add, number, auc)
        add(
            schema.run,
            run="run-bad1",
            model="late-flights",
            status="failed",
            cause="person",
            started_at=now,
            ended_at=now + timedelta(seconds=0.2),
            settings={},
            steps=[{"name": "snapshot", "seconds": 0.1}],
            result=None,
            error='model.py line 9, in features(): column "dist" not found; the table has "distance".',
            fairway="0.1.0",
            format=1,
        )
        plan = _rollouts(add, now)
        add(
            schema.endpoint,
            endpoint="late-flights",
            model="late-flights",
            epoch=7,
            share_epoch=6,
            champion=2,
            previous=1,
            challenger=3,
            rollout="rollout-2",
            shares={"2": 0.9, "3": 0.1},
            shadows=[2, 3],
            salt="rollout-2",
            state="live",
            changed_by="ana@example.com",
            changed_at=now - timedelta(days=2),
        )
        assert plan.paired
        _windows(add, now)
        add(
            schema.alarm,
            alarm="alarm-1",
            model="late-flights",
            kind="performance",
            subject="brier",
            severity="alarm",
            opened_at=now - timedelta(days=1),
            evidence={
                "found": 0.186,
                "reference": 0.162,
                "windows": 4,
                "columns": [{"column": "origin", "js": 0.12}, {"column": "hour", "js": 0.04}],
            },
            action={"row": 4, "did": "retrain", "job": "job-3"},
            settings={},
            format=1,
        )
        add(
            schema.alarm,
            alarm="alarm-2",
            model="late-flights",
            kind="drift",
            subject="origin",
            severity="notice",
            opened_at=now - timedelta(days=9),
            closed_at=now - timedelta(days=8),
            evidence={"js": 0.07},
            action=None,
            settings={},
            format=1,
        )
        add(
            schema.review,
            review="review-1",
            model="late-flights",
            kind="rollout",
            subject="rollout-2",
            question="late-flights@3: the mean prediction moved. What now?",
            evidence={"rule": "score", "look": 4, "checks": [{"name": "score", "n": 812, "effect": 0.021}]},
            choices={"continue": "the shift is wanted: go on", "rollback": "back to the champion"},
            assignee="ops@example.com",
            opened_at=now - timedelta(hours=2),
            due_at=now + timedelta(days=3),
        )
        add(
            schema.review,
            review="review-2",
            model="late-flights",
            kind="approve",
            subject="late-flights@2",
            question="late-flights@2: approve for production?",
            evidence={"gate": "23 pass, 0 fail"},
            choices={"approve": "starts the rollout", "reject": "it stays registered"},
            assignee="risk@example.com",
            not_by="ana@example.com",
            opened_at=now - timedelta(days=5),
        )
        add(
            schema.gateway,
            gateway="gateway-1",
            supervisor="s",
            heartbeat_at=clock.now() - timedelta(hours=1),
            pid=4711,
            prepared={"late-flights": 7},
            active={"late-flights": 7},
            report={"url": "http://127.0.0.1:8080"},
        )
        audit.record(store, tx, actor="ana@example.com", action="version.register", subject="late-flights@2")
        audit.record(store, tx, actor="fairway", action="rollout.step", subject="rollout-2", share=0.1)
    report = workspace.folder / "runs" / "run-0002"
    report.mkdir(parents=True)
    (report / "report.html").write_text("<!doctype html><title>report</title><h1>Report of run-0002</h1>")
    return workspace


def _version(add: Any, number: int, auc: float) -> None:
    at = T0 + timedelta(days=6 * number - 5)
    add(
        schema.run,
        run=f"run-000{number}",
        model="late-flights",
        status="done",
        cause="person",
        started_at=at,
        ended_at=at + timedelta(seconds=3.2),
        settings={},
        result={"checks": CHECKS[:3]},
        error=None,
        fairway="0.1.0",
        steps=[
            {
                "name": "snapshot",
                "key": "k",
                "seconds": 0.1,
                "cached": True,
                "text": "58,000 rows, 12 columns",
                "id": "data-16320c",
            },
            {"name": "train", "key": "k", "seconds": 2.1, "cached": False, "text": "46,000 rows", "id": ""},
        ],
        format=1,
    )
    figures = {
        "auc": {"value": auc, "low": auc - 0.01, "high": auc + 0.01},
        "brier": {"value": 0.162, "low": 0.158, "high": 0.166},
        "log_loss": {"value": 0.49, "low": None, "high": None},
    }
    add(
        schema.version,
        model="late-flights",
        version=number,
        run=f"run-000{number}",
        artifact="ab" * 32,
        dataset="data-16320c0000",
        contract="contract-1a2b3c",
        verdict="pass" if number < 3 else "ask",
        metrics={"task": "binary", "n": 11_000, "metrics": figures},
        checks=CHECKS if number == 3 else CHECKS[:3],
        settings={},
        trained_until=at,
        author="ana@example.com",
        created_at=at,
        fairway="0.1.0",
        format=1,
    )


def _rollouts(add: Any, now: datetime) -> Any:
    """A rollout that went well and one that runs: looks decided by the real rule from drawn sums."""
    facts = Facts(traffic_per_day=2000.0, loss_mean=0.16, loss_sd=0.18, sd_diff=0.04, slow_ms=40.0)
    plan = plan_rollout(SETTINGS, facts)
    start = now - timedelta(days=3)
    base = {
        "endpoint": "late-flights",
        "model": "late-flights",
        "plan": plan.as_dict(),
        "started_by": "ana@example.com",
        "settings": {},
        "fairway": "0.1.0",
        "format": 1,
        "state": {"held": [], "waived": []},
    }
    add(
        schema.rollout,
        rollout="rollout-1",
        champion=1,
        challenger=2,
        phase="promoted",
        step=4,
        step_at=T0,
        decision={"decision": "promote", "rule": "primary", "text": "brier: -0.002 against the champion", "checks": []},
        started_at=T0 + timedelta(days=8),
        ended_at=T0 + timedelta(days=12),
        **base,
    )
    add(
        schema.rollout,
        rollout="rollout-2",
        champion=2,
        challenger=3,
        phase="running",
        step=2,
        step_at=start,
        decision=None,
        started_at=start,
        ended_at=None,
        **base,
    )
    rng = np.random.default_rng(3)
    losses = rng.normal(0.001, 0.04, size=60 * 24)
    for look in range(24):
        n = 60 * (look + 1)
        at = start + timedelta(hours=3 * (look + 1))
        d = losses[:n]
        first, last = clock.iso(start), clock.iso(at)

        def total(metric: str, arm: str, n: int, s: float, sq: float, first: str = first, last: str = last) -> Sum:
            return Sum(metric=metric, share_epoch=6, arm=arm, share=0.1, n=n, sum=s, sumsq=sq, first=first, last=last)

        sums = [
            total("requests", "champion", 9 * n, 9 * n, 0.0),
            total("requests", "challenger", n, n, 0.0),
            total("requests", "paired", 10 * n, 10 * n, 0.0),
            total("errors", "champion", 9 * n, round(n / 60), 0.0),
            total("errors", "challenger", n, round(n / 400), 0.0),
            total("slow", "champion", 9 * n, round(9 * n / 100), 0.0),
            total("slow", "challenger", n, round(n / 60), 0.0),
            total("primary_paired", "paired", n, math.fsum(d), math.fsum(d * d)),
        ]
        moment = Moment(
            now=at,
            phase=Phase.RUNNING.value,
            step=2,
            step_at=start,
            step_epoch=6,
            deadline_at=start + timedelta(days=14),
        )
        verdict = judge(plan, sums, moment)
        add(
            schema.look,
            rollout="rollout-2",
            look=look + 1,
            at=at,
            decision=verdict.as_dict(),
            sums={"strata": [vars(s) for s in sums], "moment": moment.as_dict()},
        )
    for s in sums:
        add(
            schema.stratum,
            rollout="rollout-2",
            metric=s.metric,
            share_epoch=6,
            block=start,
            arm=s.arm,
            share=0.1,
            n=s.n,
            sum=s.sum,
            sumsq=s.sumsq,
        )
    return plan


def _windows(add: Any, now: datetime) -> None:
    rng = np.random.default_rng(1)
    for day in range(18):
        at = T0 + timedelta(days=day + 1)
        value = 0.16 + 0.004 * rng.standard_normal() + (0.02 if day > 13 else 0.0)
        add(
            schema.window,
            model="late-flights",
            contract="contract-1a2b3c",
            start_at=at,
            end_at=at + timedelta(days=1),
            rows=2000 + day,
            profile={},
            closed_at=at + timedelta(days=1),
            judgement={"columns": {"origin": {"x_now": 0.03, "state": "notice" if day > 14 else "ok"}}, "quality": []},
            performance={
                "version": 2,
                "of": 2000,
                "n": 1990,
                "revised": False,
                "loss": "brier",
                "mean_loss": value,
                "loss_low": value - 0.008,
                "loss_high": value + 0.008,
                "verdict": None,
                "auc": {"value": 0.82 - value, "low": 0.79 - value, "high": 0.85 - value},
            }
            if day < 17
            else None,
        )


if __name__ == "__main__":
    import sys

    made = fill(Path(sys.argv[1]))
    print(json.dumps({"root": str(made.root), "token": made.token()}))
