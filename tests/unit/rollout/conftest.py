"""A small world: one binary model with a champion and a challenger, whose predictions and labels are drawn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from fairway.contract.settings import RolloutSettings, Settings
from fairway.monitor.losses import Labels
from fairway.monitor.resolved import as_dict
from fairway.rollout import controller, sums, traffic
from fairway.rollout.plan import Facts, Plan, plan_first, plan_rollout
from fairway.stats.assignment import assign
from fairway.store import schema
from fairway.store.base import Store

START = datetime(2014, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def settings(**changes: Any) -> Settings:
    base: dict[str, Any] = {
        "name": "late", "task": "binary", "target": "late", "positive": "yes", "entity": "id", "at": "at",
        "label_delay": timedelta(hours=6), "risk": "low",
    }  # fmt: skip
    return Settings(**{**base, **changes})


def add_version(store: Store, number: int, made: Settings, *, at: datetime = START, metrics: Any = None) -> None:
    with store.write() as tx:
        tx.execute(
            sa.insert(schema.version).values(
                workspace=store.workspace, model=made.name, version=number, run=f"run-{number}", artifact="a" * 64,
                contract="contract-1", verdict="pass", metrics=metrics or {}, checks=[], settings=as_dict(made),
                author="ana", created_at=at, fairway="0.1.0", format=1,
            )
        )  # fmt: skip


@dataclass
class World:
    """Draws predictions by the endpoint's own row, feeds them to the observers, and ticks once an hour.

    p(version, truth probability) -> the version's output. fails(version) -> probability of a model error.
    """

    store: Store
    made: Settings
    now: datetime = START
    per_hour: int = 40
    seed: int = 0
    output: Callable[[int, float, float], float] = lambda version, p, noise: float(
        np.clip(p + 0.05 * noise, 0.01, 0.99)
    )
    fails: Callable[[int], float] = lambda version: 0.0
    broken_split: bool = False
    waiting: list[dict[str, Any]] = field(default_factory=list)
    made_rows: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def endpoint(self) -> Any:
        with self.store.read() as tx:
            return traffic.need_endpoint(self.store, tx, self.made.name)

    def begin(self, plan: Plan, challenger: int, **more: Any) -> str:
        with self.store.write() as tx:
            return controller.start(
                self.store, tx, model=self.made.name, challenger=challenger, plan=plan, settings=self.made,
                labels=Labels.of(self.made), actor="ana", now=self.now, **more,
            )  # fmt: skip

    def rollout(self, name: str) -> Any:
        with self.store.read() as tx:
            return controller.find(self.store, tx, name)

    def hour(self) -> None:
        """An hour of traffic, then the labels that are due, then a tick."""
        row, rows = self.endpoint(), []
        for i in range(self.per_hour):
            at = self.now + HOUR * (i / self.per_hour)
            unit = f"u{self.made_rows}"
            self.made_rows += 1
            if not row.shares:
                continue
            arm = next(iter(row.shares)) if len(row.shares) == 1 else assign(unit, row.salt, row.shares)
            if self.broken_split and self.random.random() < 0.3:
                arm = str(row.champion)
            p = float(self.random.beta(1.0, 5.0))
            versions = {int(arm), *row.shadows}
            answers = {}
            for version in sorted(versions):
                failed = self.random.random() < self.fails(version)
                output = self.output(version, p, float(self.random.normal()))
                answers[str(version)] = {
                    "role": "served" if str(version) == arm else "shadow", "latency_ms": 1.0,
                    "status": "model_error" if failed else "ok", "output": None if failed else output,
                }  # fmt: skip
            rows.append(
                {
                    "prediction": f"p-{unit}", "endpoint": self.made.name, "model": self.made.name, "at": at,
                    "received_at": at, "unit": unit, "rollout": row.rollout, "share_epoch": row.share_epoch,
                    "arm": int(arm), "propensity": row.shares[arm], "contract": "contract-1", "flags": [],
                    "answers": answers, "label": "yes" if self.random.random() < p else "no",
                }
            )  # fmt: skip
        self.now += HOUR
        self.waiting.extend(rows)
        if self.made.label_delay is None:
            self.waiting = []
        due = [r for r in self.waiting if r["at"] + timedelta(hours=6) <= self.now]
        self.waiting = [r for r in self.waiting if r["at"] + timedelta(hours=6) > self.now]
        with self.store.write() as tx:
            sums.observe(self.store, tx, rows)
            sums.fold_matured(self.store, tx, due, self.now)
        controller.tick(self.store, self.now)

    def run(self, rollout: str, *, days: float, until: tuple[str, ...] = ("promoted", "rolled_back")) -> Any:
        for _ in range(int(days * 24)):
            self.hour()
            row = self.rollout(rollout)
            if row.phase in until:
                return row
        return self.rollout(rollout)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


@pytest.fixture
def make_world(store: Store) -> Callable[..., World]:
    """A world whose champion is version 1 and past its guard."""

    def make(*, versions: int = 2, champion: bool = True, rollout: RolloutSettings | None = None, **more: Any) -> World:
        made = settings(**more.pop("settings", {}), rollout=rollout or RolloutSettings(shares=(0.01, 0.1, 0.5)))
        for number in range(1, versions + 1):
            add_version(store, number, made)
        world = World(store, made, **more)
        if champion:
            first = world.begin(plan_first(made), 1)
            assert world.run(first, days=2).phase == "promoted"
        return world

    return make


@pytest.fixture
def plan_for() -> Callable[..., Plan]:
    def make(world: World, **facts: Any) -> Plan:
        known = {"traffic_per_day": world.per_hour * 24.0, "loss_mean": 0.12, "loss_sd": 0.2, "sd_diff": 0.03}
        return plan_rollout(world.made, Facts(**{**known, **facts}))

    return make
