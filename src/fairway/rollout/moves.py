"""What a rollout's decisions do to traffic: steps, promotion, the end of the guard, the way back.

Within the caller's transaction, so that a decision and what it does commit together.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.monitor import alarms, reference
from fairway.monitor.resolved import as_dict as settings_as_dict
from fairway.monitor.resolved import settings_of
from fairway.rollout import asks, traffic
from fairway.rollout.plan import Plan
from fairway.rollout.state import Decision, Phase, next_phase
from fairway.store import schema
from fairway.store.base import Row, Store

ACTOR = "fairway"
ASK_FOR = timedelta(days=3)


def save(store: Store, tx: Connection, row: Row, **values: Any) -> None:
    table = schema.rollout
    values = {name: value.value if isinstance(value, Phase) else value for name, value in values.items()}
    tx.execute(
        sa.update(table).where(table.c.workspace == store.workspace, table.c.rollout == row.rollout).values(**values)
    )


def enter_step(
    store: Store, tx: Connection, row: Row, plan: Plan, step: int, *,
    state: Mapping[str, Any], actor: str, now: datetime, phase: Phase,
) -> None:  # fmt: skip
    here = plan.steps[step]
    # In a canary both: each row is also scored by the version that it was not assigned to.
    shadows = [row.challenger] if here.kind == "shadow" else [row.champion, row.challenger] if plan.paired else []
    epoch = traffic.change(
        store, tx, row.endpoint, actor=actor, action="rollout.step", now=now, challenger=row.challenger,
        rollout=row.rollout, shares=traffic.split(row.champion, row.challenger, here.share), shadows=shadows,
        salt=row.rollout,
    )  # fmt: skip
    share_epoch = traffic.need_endpoint(store, tx, row.endpoint).share_epoch
    save(
        store, tx, row, phase=phase, step=step, step_at=now,
        state={**state, "step_epoch": share_epoch, "epoch": epoch},
    )  # fmt: skip


def promote(
    store: Store, tx: Connection, row: Row, *, state: Mapping[str, Any], actor: str, now: datetime, why: str,
    decision: dict[str, Any],
) -> int:  # fmt: skip
    """The challenger takes all traffic; the old champion stays warm and scores in shadow for the guard time."""
    plan = Plan.from_dict(row.plan)
    older = traffic.need_endpoint(store, tx, row.endpoint).previous
    epoch = traffic.change(
        store, tx, row.endpoint, actor=actor, action="rollout.promote", now=now, why=why, champion=row.challenger,
        previous=row.champion, challenger=None, rollout=row.rollout, shares=traffic.all_to(row.challenger),
        shadows=[row.champion], state=traffic.LIVE, about={"rule": decision.get("rule")},
    )  # fmt: skip
    reference.activate(store, tx, row.model, row.challenger)
    share_epoch = traffic.need_endpoint(store, tx, row.endpoint).share_epoch
    asks.withdraw(store, tx, subject=row.rollout, now=now, why="the rollout was decided")
    save(
        store, tx, row, phase=next_phase(Phase.RUNNING, Decision.PROMOTE), step=len(plan.steps) - 1, step_at=now,
        decision=decision, state={**state, "step_epoch": share_epoch, "held": [], "older": older},
    )  # fmt: skip
    return epoch


def end_guard(
    store: Store, tx: Connection, row: Row, decision: dict[str, Any], *, state: dict[str, Any], now: datetime
) -> None:
    """The guard time is over. decision: of the look that ended it; what promoted the version before that stays."""
    traffic.change(
        store, tx, row.endpoint, actor=ACTOR, action="rollout.guard_over", now=now, rollout=None, shadows=[],
        about={"ended": row.rollout},
    )  # fmt: skip
    save(store, tx, row, phase=Phase.PROMOTED, ended_at=now, state=state, decision=row.decision or decision)


def roll_back(
    store: Store, tx: Connection, row: Row, *, actor: str, now: datetime, why: str, decision: dict[str, Any] | None
) -> int:
    """Back to what was before the rollout, or to no champion at all; asks why when it had been promoted."""
    guarding, back = row.phase == Phase.GUARDING, row.champion
    older = row.state.get("older") if guarding else traffic.need_endpoint(store, tx, row.endpoint).previous
    epoch = traffic.change(
        store, tx, row.endpoint, actor=actor, action="rollback", now=now, why=why, champion=back, challenger=None,
        previous=None if back is None else older, rollout=None,
        shares={} if back is None else traffic.all_to(back), shadows=[],
        state=traffic.NO_CHAMPION if back is None else traffic.LIVE, about={"ended": row.rollout},
    )  # fmt: skip
    asks.withdraw(store, tx, subject=row.rollout, now=now, why="the rollout was rolled back")
    values: dict[str, Any] = {"phase": Phase.ROLLED_BACK, "ended_at": now}
    if decision is not None:
        values["decision"] = decision
    save(store, tx, row, **values)
    if guarding:
        if back is not None:
            reference.activate(store, tx, row.model, back)
        if actor == ACTOR:
            _after_guard_fired(store, tx, row, why, decision, now)
    return epoch


def _after_guard_fired(
    store: Store, tx: Connection, row: Row, why: str, decision: dict[str, Any] | None, now: datetime
) -> None:
    """METHODS 9 row 1: a guardrail fired within 24 h of a promotion: it was rolled back, now ask."""
    settings = settings_of(store, tx, row.model, row.challenger)
    evidence = {"rollout": row.rollout, "version": row.challenger, "why": why, "look": (decision or {}).get("look")}
    raised = alarms.raise_alarm(
        store, tx, model=row.model, kind="guardrail", subject=row.rollout, severity="alarm", evidence=evidence,
        settings=settings_as_dict(settings), now=now,
    )  # fmt: skip
    review = asks.open_review(
        store, tx, model=row.model, kind="retrain", subject=raised.alarm,
        question=f"{row.model}@{row.challenger} was taken off in its guard time: {why}. What now?",
        evidence=evidence,
        choices={"retrain": "train a new candidate now", "keep": "leave it as it is now"},
        assignee=settings.owner, now=now, due_at=now + ASK_FOR,
    )  # fmt: skip
    alarms.update(store, tx, raised.alarm, action={"row": 1, "did": "rolled back", "review": review})
