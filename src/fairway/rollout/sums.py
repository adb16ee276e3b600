"""Stratified sums of a rollout: predictions enter when their segment is folded, labelled ones when they have matured.

A unit enters a metric once (METHODS 0): its row in `rollout_unit` and the sums change in one transaction, the caller's.
Where both versions answered the same rows and all traffic went to one (the shadow step, and the guard after a
promotion), errors are compared on those rows with a share of one half: of the rows that only one version failed, each
is as likely to be it when both are equally good.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.monitor.losses import Labels, row_loss, score
from fairway.rollout.decide import CHALLENGER, CHAMPION, PAIRED, Sum
from fairway.rollout.plan import Plan
from fairway.rollout.state import LIVE, Phase
from fairway.store import schema
from fairway.store.base import Row, Store

BLOCK = timedelta(hours=1)
FAILED = ("model_error", "timeout")
_CHUNK = 400  # bound parameters of one statement

_Key = tuple[str, int, datetime, str, float]  # metric, share epoch, block, arm, share


class _Increments:
    """Changes of one rollout's sums, written at once."""

    def __init__(self) -> None:
        self.sums: dict[_Key, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, metric: str, epoch: int, block: datetime, arm: str, share: float, values: Sequence[float]) -> None:
        """values: one per unit or row counted."""
        total = self.sums[(metric, epoch, block, arm, share)]
        total[0] += len(values)
        total[1] += math.fsum(values)
        total[2] += math.fsum(v * v for v in values)

    def write(self, store: Store, tx: Connection, rollout: str) -> None:
        table = schema.stratum
        for (metric, epoch, block, arm, share), (n, total, squares) in sorted(self.sums.items()):
            key = {
                "workspace": store.workspace, "rollout": rollout, "metric": metric, "share_epoch": epoch,
                "block": block, "arm": arm,
            }  # fmt: skip
            where = sa.and_(*(table.c[name] == value for name, value in key.items()))
            grown = {"n": table.c.n + int(n), "sum": table.c.sum + total, "sumsq": table.c.sumsq + squares}
            if tx.execute(sa.update(table).where(where).values(**grown)).rowcount == 0:
                tx.execute(sa.insert(table).values(**key, share=share, n=int(n), sum=total, sumsq=squares))


class _Units:
    """Which units of one rollout and metric were counted already."""

    def __init__(self, store: Store, tx: Connection, rollout: str) -> None:
        self._store, self._tx, self._rollout = store, tx, rollout
        self._known: set[tuple[str, str]] = set()
        self._rows: list[dict[str, Any]] = []

    def load(self, metric: str, units: Iterable[str]) -> None:
        table, wanted = schema.rollout_unit, sorted(set(units))
        for start in range(0, len(wanted), _CHUNK):
            found = self._tx.scalars(
                sa.select(table.c.unit).where(
                    table.c.workspace == self._store.workspace,
                    table.c.rollout == self._rollout,
                    table.c.metric == metric,
                    table.c.unit.in_(wanted[start : start + _CHUNK]),
                )
            )
            self._known.update((metric, unit) for unit in found)

    def enter(
        self, metric: str, unit: str, *, arm: str, epoch: int, block: datetime, value: float, at: datetime | None
    ) -> bool:
        """True if the unit was not counted before; it is from now on."""
        if (metric, unit) in self._known:
            return False
        self._known.add((metric, unit))
        self._rows.append(
            {
                "workspace": self._store.workspace, "rollout": self._rollout, "metric": metric, "unit": unit,
                "arm": arm, "share_epoch": epoch, "block": block, "n": 1, "sum": value, "folded_at": at,
            }
        )  # fmt: skip
        return True

    def write(self) -> None:
        if self._rows:
            self._tx.execute(sa.insert(schema.rollout_unit), self._rows)


def block_of(at: datetime) -> datetime:
    """Start of the calendar hour."""
    return clock.from_us(clock.to_us(at) // 3_600_000_000 * 3_600_000_000)


def live_rollouts(store: Store, tx: Connection, names: Iterable[str]) -> dict[str, Row]:
    """The rollouts among `names` whose sums still grow."""
    table = schema.rollout
    wanted = sorted(set(names))
    rows = tx.execute(
        sa.select(table).where(
            table.c.workspace == store.workspace, table.c.rollout.in_(wanted), table.c.phase.in_(LIVE)
        )
    )
    return {row.rollout: row for row in rows}


def observe(store: Store, tx: Connection, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Add newly folded predictions (keys as the columns of `prediction`) to the sums of their rollouts."""
    by_rollout: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for prediction in predictions:
        if prediction["rollout"]:
            by_rollout[prediction["rollout"]].append(prediction)
    if not by_rollout:
        return
    for name, row in live_rollouts(store, tx, by_rollout).items():
        mine = sorted(by_rollout[name], key=lambda p: (p["at"], p["prediction"]))
        _observe_rollout(store, tx, row, mine)


def _observe_rollout(store: Store, tx: Connection, row: Row, predictions: Sequence[Mapping[str, Any]]) -> None:
    plan = Plan.from_dict(row.plan)
    increments, units = _Increments(), _Units(store, tx, row.rollout)
    units.load("assigned", (p["unit"] for p in predictions))
    for arm in (CHAMPION, CHALLENGER):
        for metric in ("errors", "slow"):
            # Only units with an event are kept; those of this batch are the ones that could repeat.
            eventful = [p["unit"] for p in predictions if _event(metric, plan, p, _version(row, arm))]
            units.load(f"{metric}:{arm}", eventful)
    for p in predictions:
        _count(plan, row, p, increments, units)
    units.write()
    increments.write(store, tx, row.rollout)


def _version(row: Row, arm: str) -> int | None:
    version: int | None = row.challenger if arm == CHALLENGER else row.champion
    return version


def _challenger_share(arm: str, propensity: float) -> float:
    # Rounded: 1 - 0.9 is not 0.1, and both arms of a stratum must name one share.
    return round(propensity if arm == CHALLENGER else 1.0 - propensity, 9)


def _answer(p: Mapping[str, Any], version: int | None) -> Mapping[str, Any] | None:
    answer: Mapping[str, Any] | None = p["answers"].get(str(version))
    return answer


def _event(metric: str, plan: Plan, p: Mapping[str, Any], version: int | None) -> bool:
    answer = _answer(p, version)
    if answer is None:
        return False
    if metric == "errors":
        return answer["status"] in FAILED
    bar = plan.max_ms if plan.first else plan.slow_ms
    latency = answer.get("latency_ms")
    return bar is not None and answer["status"] == "ok" and latency is not None and latency > bar


def _count(plan: Plan, row: Row, p: Mapping[str, Any], increments: _Increments, units: _Units) -> None:
    arm = CHALLENGER if p["arm"] == row.challenger else CHAMPION
    propensity = 1.0 if p["propensity"] is None else float(p["propensity"])
    share = _challenger_share(arm, propensity)
    epoch, block, unit = int(p["share_epoch"]), block_of(p["at"]), p["unit"]
    champion, challenger = _answer(p, row.champion), _answer(p, row.challenger)
    both = champion is not None and challenger is not None

    increments.add("requests", epoch, block, arm, share, [1.0])
    if both:
        increments.add("requests", epoch, block, PAIRED, share, [1.0])
    new = units.enter("assigned", unit, arm=arm, epoch=epoch, block=block, value=1.0, at=p["at"])
    if new:
        increments.add("assigned", epoch, block, arm, share, [1.0])

    split = 0.0 < share < 1.0 or plan.first
    compared = [arm] if split else [CHAMPION, CHALLENGER] if both else []
    for metric in plan.guardrails:
        # Shadow answers wait behind served ones, so their latency says nothing about the version.
        for side in compared if metric == "errors" or split else []:
            happened = _event(metric, plan, p, _version(row, side)) and units.enter(
                f"{metric}:{side}", unit, arm=side, epoch=epoch, block=block, value=1.0, at=p["at"]
            )
            increments.add(metric, epoch, block, side, share if split else 0.5, [float(happened)])
    if new and champion is not None and challenger is not None:
        one, zero = (score(a.get("output")) if a["status"] == "ok" else None for a in (challenger, champion))
        if one is not None and zero is not None:
            increments.add("score", epoch, block, PAIRED, 0.5, [one - zero])


def fold_matured(store: Store, tx: Connection, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Add matured, labelled predictions to the primary sums of their rollouts: each unit once, its first event.

    rows: as of `monitor.performance.matured`. A row that lacks an answer which the comparison needs is left out.
    """
    names = {row["rollout"] for row in rows if row["rollout"]}
    if not names:
        return
    for name, rollout in live_rollouts(store, tx, names).items():
        if rollout.phase == Phase.GUARDING:
            continue  # decided: what matures now changes no look already taken
        plan, labels = Plan.from_dict(rollout.plan), Labels.from_dict(rollout.state["labels"])
        cap = rollout.state.get("loss_cap")
        metric = "primary_paired" if plan.paired else "primary"
        mine = sorted((r for r in rows if r["rollout"] == name), key=lambda r: (r["at"], r["prediction"]))
        increments, units = _Increments(), _Units(store, tx, name)
        units.load(metric, (r["unit"] for r in mine))

        def loss(row: Mapping[str, Any], version: int | None) -> float | None:
            answer = _answer(row, version)
            if answer is None or answer["status"] != "ok":
                return None
            value = row_loss(plan.loss, labels, row["label"], answer["output"])  # noqa: B023 - called in this turn only
            return value if value is None or cap is None else min(value, cap)  # noqa: B023

        for row in mine:
            arm = CHALLENGER if row["arm"] == rollout.challenger else CHAMPION
            propensity = 1.0 if row["propensity"] is None else float(row["propensity"])
            share = _challenger_share(arm, propensity)
            if plan.paired:
                old, new = loss(row, rollout.champion), loss(row, rollout.challenger)
                value = None if old is None or new is None else old - new
                arm, share = PAIRED, 0.5
            else:
                own = loss(row, row["arm"]) if 0.0 < share < 1.0 else None
                value = None if own is None else -own
            if value is None:
                continue
            epoch, block = int(row["share_epoch"]), block_of(row["at"])
            if units.enter(metric, row["unit"], arm=arm, epoch=epoch, block=block, value=value, at=now):
                increments.add(metric, epoch, block, arm, share, [value])
        units.write()
        increments.write(store, tx, name)


def read(store: Store, tx: Connection, rollout: str) -> list[Sum]:
    """The sums that a look sees: blocks of one share pooled, which changes no result but that of independent arms'
    means; those stay by block."""
    table = schema.stratum
    rows = tx.execute(
        sa.select(table)
        .where(table.c.workspace == store.workspace, table.c.rollout == rollout)
        .order_by(table.c.metric, table.c.share_epoch, table.c.arm, table.c.share, table.c.block)
    ).all()
    pooled: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_block = row.block if row.metric == "primary" else None
        pooled.setdefault((row.metric, row.share_epoch, row.arm, row.share, by_block), []).append(row)
    return [
        Sum(
            metric=group[0].metric, share_epoch=group[0].share_epoch, arm=group[0].arm, share=group[0].share,
            n=sum(r.n for r in group), sum=math.fsum(r.sum for r in group), sumsq=math.fsum(r.sumsq for r in group),
            first=clock.iso(group[0].block), last=clock.iso(group[-1].block),
        )
        for group in pooled.values()
    ]  # fmt: skip
