"""Acts on a rollout: start, one look per batch of new sums, and what people may do. All state is in the store.

Every change is one transaction: the look, the rollout's row, the endpoint's row and the audit entry commit together or
not at all, so a controller may die anywhere and another goes on. A tick that finds nothing new changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

import fairway
from fairway import clock
from fairway.contract.settings import Settings
from fairway.errors import RolloutRefused, ThingNotFound
from fairway.monitor import reference
from fairway.monitor.losses import Labels
from fairway.monitor.resolved import as_dict as settings_as_dict
from fairway.monitor.resolved import settings_of
from fairway.rollout import asks, moves, sums, traffic
from fairway.rollout.decide import Moment, Sum, Verdict, judge
from fairway.rollout.plan import Plan
from fairway.rollout.state import OPEN, Decision, Phase
from fairway.store import audit, schema
from fairway.store.base import Row, Store

FORMAT = 1
ACTOR = moves.ACTOR

_CHOICES = {
    "srm": {"continue": "go on in spite of it", "rollback": "back to the champion"},
    "score": {"continue": "the shift is wanted: go on", "rollback": "back to the champion"},
    "no labels": {"promote": "make it champion without labels", "rollback": "back to the champion"},
    "timeout": {
        "promote": "make it champion, undecided as it is",
        "continue": "look on without a time limit",
        "rollback": "back to the champion",
    },
}


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a change of traffic did. to: None when there is no champion afterwards."""

    endpoint: str
    epoch: int
    before: int | None
    to: int | None
    rollout: str | None


# -- reading ---------------------------------------------------------------------------------------------------------


def find(store: Store, tx: Connection, rollout: str) -> Row:
    """Raises: ThingNotFound."""
    table = schema.rollout
    row = tx.execute(sa.select(table).where(table.c.workspace == store.workspace, table.c.rollout == rollout)).first()
    if row is None:
        raise ThingNotFound(f"no {rollout}; see them with: fairway show rollouts")
    return row


def open_rollout(store: Store, tx: Connection, endpoint: str) -> Row | None:
    """The rollout of this endpoint that has not ended, if any; at most one."""
    table = schema.rollout
    return tx.execute(
        sa.select(table).where(
            table.c.workspace == store.workspace, table.c.endpoint == endpoint, table.c.phase.in_(OPEN)
        )
    ).first()


# -- starting --------------------------------------------------------------------------------------------------------


def start(
    store: Store,
    tx: Connection,
    *,
    model: str,
    challenger: int,
    plan: Plan,
    settings: Settings,
    labels: Labels,
    actor: str,
    now: datetime,
    waiting: bool = False,
    loss_cap: float | None = None,
) -> str:
    """Begin a rollout of `challenger` on the model's endpoint; returns its id.

    waiting: it moves nothing until `approve`. A first version (plan.first) is live at once, with its guard.
    Raises: RolloutRefused when a rollout is open, the version is champion already, or there is no champion to compare
    with although the plan needs one.
    """
    row = traffic.endpoint(store, tx, model)
    current = open_rollout(store, tx, model)
    champion = row.champion if row is not None and row.state == traffic.LIVE else None
    if current is not None and not is_first_guard(current):
        raise RolloutRefused(f"{current.rollout} of {model}@{current.challenger} is {current.phase}; end it first")
    if champion == challenger:
        raise RolloutRefused(f"{model}@{challenger} is the champion already")
    if (champion is None) != plan.first:
        raise RolloutRefused("the champion changed since the plan was made; deploy again")
    if current is not None:
        ended = {"decision": "promote", "rule": "guard", "text": f"no harm shown until {model}@{challenger} followed",
                 "checks": [], "at": clock.iso(now)}  # fmt: skip
        moves.end_guard(store, tx, current, ended, state=current.state, now=now)
    name = f"rollout-{store.next_number(tx, 'rollout')}"
    state: dict[str, Any] = {
        "labels": labels.as_dict(),
        "held": [],
        "waived": [],
        "max_log_e": {},
        "loss_cap": loss_cap,
    }
    tx.execute(
        sa.insert(schema.rollout).values(
            workspace=store.workspace, rollout=name, endpoint=model, model=model, champion=champion,
            challenger=challenger, phase=Phase.WAITING.value, step=0, step_at=now, plan=plan.as_dict(), state=state,
            started_by=actor, started_at=now, settings=settings_as_dict(settings), fairway=fairway.__version__,
            format=FORMAT,
        )
    )  # fmt: skip
    audit.record(store, tx, actor=actor, action="rollout.plan", subject=name, model=model, challenger=challenger)
    if not waiting:
        _begin(store, tx, find(store, tx, name), actor=actor, now=now)
    return name


def is_first_guard(row: Row) -> bool:
    """Whether this is a first version in its guard time: nothing older waits behind it, so a successor may come."""
    return row.phase == Phase.GUARDING and row.champion is None


def approve(store: Store, tx: Connection, rollout: str, *, actor: str, now: datetime) -> None:
    """Let a waiting rollout begin. Raises: ThingNotFound, RolloutRefused if it is not waiting."""
    row = find(store, tx, rollout)
    if row.phase != Phase.WAITING:
        raise RolloutRefused(f"{rollout} is {row.phase}, not waiting")
    _begin(store, tx, row, actor=actor, now=now)


def _begin(store: Store, tx: Connection, row: Row, *, actor: str, now: datetime) -> None:
    plan = Plan.from_dict(row.plan)
    if plan.first:
        epoch = traffic.change(
            store, tx, row.endpoint, actor=actor, action="rollout.first", now=now, model=row.model,
            champion=row.challenger, challenger=None, rollout=row.rollout, shares=traffic.all_to(row.challenger),
            shadows=[], salt=row.rollout, state=traffic.LIVE,
        )  # fmt: skip
        reference.activate(store, tx, row.model, row.challenger)
        moves.save(store, tx, row, phase=Phase.GUARDING, step=0, step_at=now, state={**row.state, "step_epoch": epoch})
        return
    state = {**row.state, "deadline_at": clock.iso(now + timedelta(seconds=plan.timeout_s))}
    moves.enter_step(store, tx, row, plan, 0, state=state, actor=actor, now=now, phase=Phase.RUNNING)


# -- looking ---------------------------------------------------------------------------------------------------------


def tick(store: Store, now: datetime) -> bool:
    """One look at every running rollout; True if anything was written."""
    table = schema.rollout
    with store.read() as tx:
        query = sa.select(table.c.rollout).where(
            table.c.workspace == store.workspace, table.c.phase.in_((Phase.RUNNING, Phase.GUARDING))
        )
        names = sorted(tx.scalars(query), key=lambda name: (len(name), name))
    changed = False
    for name in names:
        with store.write() as tx:
            changed |= look(store, tx, name, now)
    return changed


def look(store: Store, tx: Connection, rollout: str, now: datetime) -> bool:
    """Take one look and act on it. False when there is nothing new to see and nothing is due."""
    row = find(store, tx, rollout)
    if row.phase not in (Phase.RUNNING, Phase.GUARDING):
        return False
    plan, seen = Plan.from_dict(row.plan), sums.read(store, tx, rollout)
    moment = _moment(row, now)
    verdict = judge(plan, seen, moment)
    last = _last_look(store, tx, rollout)
    acts = verdict.decision is not Decision.CONTINUE or verdict.step_to is not None
    stored = [vars(s) for s in seen]
    if not acts and last is not None and last.sums["strata"] == stored:
        return False
    number = _store_look(store, tx, rollout, last, {"strata": stored, "moment": moment.as_dict()}, verdict, now, acts)
    _act(store, tx, row, plan, verdict, number, now)
    return True


def _moment(row: Row, now: datetime) -> Moment:
    deadline = row.state.get("deadline_at")
    return Moment(
        now=now, phase=row.phase, step=row.step, step_at=row.step_at, step_epoch=row.state["step_epoch"],
        deadline_at=None if deadline is None else clock.parse_iso(deadline), held=tuple(row.state["held"]),
        waived=tuple(row.state["waived"]),
    )  # fmt: skip


def _last_look(store: Store, tx: Connection, rollout: str) -> Row | None:
    table = schema.look
    where = sa.and_(table.c.workspace == store.workspace, table.c.rollout == rollout)
    return tx.execute(sa.select(table).where(where).order_by(table.c.look.desc()).limit(1)).first()


def _store_look(
    store: Store, tx: Connection, rollout: str, last: Row | None, seen: dict[str, Any], verdict: Verdict,
    now: datetime, acts: bool,
) -> int:  # fmt: skip
    """Every look that does something is kept; of those that only wait, the newest of each hour, or a busy endpoint
    would store one a second."""
    table = schema.look
    idle = last is not None and last.decision["decision"] == "continue" and last.decision["step_to"] is None
    if last is not None and idle and not acts and sums.block_of(last.at) == sums.block_of(now):
        where = sa.and_(table.c.workspace == store.workspace, table.c.rollout == rollout, table.c.look == last.look)
        tx.execute(sa.update(table).where(where).values(at=now, sums=seen, decision=verdict.as_dict()))
        return int(last.look)
    number = 1 if last is None else int(last.look) + 1
    tx.execute(
        sa.insert(table).values(
            workspace=store.workspace, rollout=rollout, look=number, at=now, sums=seen, decision=verdict.as_dict()
        )
    )
    return number


def _act(store: Store, tx: Connection, row: Row, plan: Plan, verdict: Verdict, number: int, now: datetime) -> None:
    best = dict(row.state["max_log_e"])
    for check in verdict.checks:
        if check.get("log_e") is not None:
            best[check["name"]] = max(best.get(check["name"], 0.0), check["log_e"])
    state = {**row.state, "max_log_e": best}
    decision = {**verdict.as_dict(), "look": number, "at": clock.iso(now)}
    if verdict.decision is Decision.ROLLBACK:
        moves.save(store, tx, row, state=state)
        moves.roll_back(store, tx, row, actor=ACTOR, now=now, why=verdict.text, decision=decision)
    elif verdict.decision is Decision.PROMOTE and row.phase == Phase.GUARDING:
        moves.end_guard(store, tx, row, decision, state=state, now=now)
    elif verdict.decision is Decision.PROMOTE:
        moves.save(store, tx, row, state=state)
        moves.promote(store, tx, row, state=state, actor=ACTOR, now=now, why=verdict.text, decision=decision)
    elif verdict.decision is Decision.ASK:
        _ask(store, tx, row, verdict, state, decision, now)
    elif verdict.step_to is not None:
        moves.enter_step(store, tx, row, plan, verdict.step_to, state=state, actor=ACTOR, now=now, phase=Phase.RUNNING)
    else:
        moves.save(store, tx, row, state=state)


def _ask(
    store: Store, tx: Connection, row: Row, verdict: Verdict, state: dict[str, Any], decision: dict[str, Any],
    now: datetime,
) -> None:  # fmt: skip
    settings = settings_of(store, tx, row.model, row.challenger)
    asks.open_review(
        store, tx, model=row.model, kind="rollout", subject=row.rollout,
        question=f"{row.model}@{row.challenger}: {verdict.text}. What now?",
        evidence={"rule": verdict.rule, "checks": list(verdict.checks), "look": decision["look"]},
        choices=_CHOICES[verdict.rule], assignee=settings.owner, now=now, due_at=now + moves.ASK_FOR,
    )  # fmt: skip
    held = [*state["held"], verdict.rule]
    if verdict.rule == "srm":
        # Frozen: nothing that it would show is valid. Shares stay, so that nobody is moved on bad evidence either.
        state = {**state, "paused_at": clock.iso(now)}
        moves.save(store, tx, row, state={**state, "held": held}, phase=Phase.PAUSED, decision=decision)
        audit.record(store, tx, actor=ACTOR, action="rollout.freeze", subject=row.rollout, why=verdict.text)
        return
    moves.save(store, tx, row, state={**state, "held": held})


# -- people ----------------------------------------------------------------------------------------------------------


def _running(store: Store, tx: Connection, model: str) -> Row:
    row = open_rollout(store, tx, model)
    if row is None:
        raise RolloutRefused(f"no rollout of {model} is open")
    return row


def pause(store: Store, model: str, *, actor: str, now: datetime, why: str | None = None) -> str:
    """Take no more looks and change no shares until `resume`; traffic stays as it is. Returns the rollout's id."""
    with store.write() as tx:
        row = _running(store, tx, model)
        if row.phase != Phase.RUNNING:
            raise RolloutRefused(f"{row.rollout} is {row.phase}; only a running one can be paused")
        moves.save(store, tx, row, phase=Phase.PAUSED, state={**row.state, "paused_at": clock.iso(now)})
        audit.record(store, tx, actor=actor, action="rollout.pause", subject=row.rollout, why=why)
        return str(row.rollout)


def resume(store: Store, model: str, *, actor: str, now: datetime, why: str | None = None) -> str:
    """Go on; the pause counts neither for the step nor for the timeout. Returns the rollout's id."""
    with store.write() as tx:
        row = _running(store, tx, model)
        if row.phase != Phase.PAUSED:
            raise RolloutRefused(f"{row.rollout} is {row.phase}, not paused")
        _resume(store, tx, row, actor=actor, now=now, why=why)
        return str(row.rollout)


def _resume(store: Store, tx: Connection, row: Row, *, actor: str, now: datetime, why: str | None) -> None:
    if "srm" in row.state["held"] and "srm" not in row.state["waived"]:
        raise RolloutRefused(f"{row.rollout} is frozen by a sample ratio mismatch: answer its review")
    away = now - clock.parse_iso(row.state["paused_at"])
    deadline = clock.iso(clock.parse_iso(row.state["deadline_at"]) + away)
    state = {name: value for name, value in row.state.items() if name != "paused_at"} | {"deadline_at": deadline}
    moves.save(store, tx, row, phase=Phase.RUNNING, step_at=row.step_at + away, state=state)
    audit.record(store, tx, actor=actor, action="rollout.resume", subject=row.rollout, why=why)


def waive(store: Store, tx: Connection, rollout: str, rule: str, *, actor: str, now: datetime, why: str | None) -> None:
    """A person's "continue" to an ask: this rule stops no more looks of this rollout."""
    row = find(store, tx, rollout)
    state = {
        **row.state,
        "held": [r for r in row.state["held"] if r != rule],
        "waived": sorted({*row.state["waived"], rule}),
    }
    moves.save(store, tx, row, state=state)
    audit.record(store, tx, actor=actor, action="rollout.waive", subject=rollout, rule=rule, why=why)
    row = find(store, tx, rollout)
    if row.phase == Phase.PAUSED and rule == "srm":
        _resume(store, tx, row, actor=actor, now=now, why=why)


def finish(store: Store, model: str, *, why: str, actor: str, now: datetime) -> Moved:
    """Promote the challenger now, past what is not shown yet; recorded as a person's decision."""
    with store.write() as tx:
        row = _running(store, tx, model)
        if row.phase not in (Phase.RUNNING, Phase.PAUSED):
            raise RolloutRefused(f"{row.rollout} is {row.phase}; only a running or paused one can be finished")
        return finish_row(store, tx, row, why=why, actor=actor, now=now)


def finish_row(store: Store, tx: Connection, row: Row, *, why: str, actor: str, now: datetime) -> Moved:
    decision = {"decision": "promote", "rule": "person", "text": why, "checks": [], "at": clock.iso(now)}
    epoch = moves.promote(store, tx, row, state=row.state, actor=actor, now=now, why=why, decision=decision)
    return Moved(endpoint=row.endpoint, epoch=epoch, before=row.champion, to=row.challenger, rollout=row.rollout)


def rollback(store: Store, model: str, *, why: str | None, actor: str, now: datetime) -> Moved:
    """The version before, at once: ends an open rollout, else goes to the previous champion.

    Without anything older the endpoint answers 503 `no_champion`. Raises: ModelNotFound, RolloutRefused when there is
    no champion already.
    """
    with store.write() as tx:
        return rollback_in(store, tx, model, why=why or "asked for", actor=actor, now=now)


def rollback_in(store: Store, tx: Connection, model: str, *, why: str, actor: str, now: datetime) -> Moved:
    """`rollback` within the caller's transaction."""
    endpoint = traffic.need_endpoint(store, tx, model)
    row = open_rollout(store, tx, model)
    if row is not None:
        return rollback_row(store, tx, row, why=why, actor=actor, now=now)
    if endpoint.champion is None:
        raise RolloutRefused(f"{model} has no champion, so there is nothing to go back from")
    back = endpoint.previous
    epoch = traffic.change(
        store, tx, model, actor=actor, action="rollback", now=now, why=why, champion=back,
        previous=endpoint.champion if back is not None else None, challenger=None, rollout=None,
        shares={} if back is None else traffic.all_to(back), shadows=[],
        state=traffic.NO_CHAMPION if back is None else traffic.LIVE,
    )  # fmt: skip
    if back is not None:
        reference.activate(store, tx, model, back)
    return Moved(endpoint=model, epoch=epoch, before=endpoint.champion, to=back, rollout=None)


def rollback_row(store: Store, tx: Connection, row: Row, *, why: str, actor: str, now: datetime) -> Moved:
    """End an open rollout in favour of what was before it. A waiting one has moved nothing and just ends."""
    if row.phase == Phase.WAITING:
        asks.withdraw(store, tx, subject=row.rollout, now=now, why=why)
        moves.save(store, tx, row, phase=Phase.ENDED, ended_at=now)
        audit.record(store, tx, actor=actor, action="rollout.end", subject=row.rollout, why=why)
        endpoint = traffic.endpoint(store, tx, row.endpoint)
        epoch = endpoint.epoch if endpoint is not None else 0
        return Moved(endpoint=row.endpoint, epoch=epoch, before=row.champion, to=row.champion, rollout=row.rollout)
    decision = {"decision": "rollback", "rule": "person", "text": why, "checks": [], "at": clock.iso(now)}
    epoch = moves.roll_back(store, tx, row, actor=actor, now=now, why=why, decision=decision)
    return Moved(endpoint=row.endpoint, epoch=epoch, before=row.challenger, to=row.champion, rollout=row.rollout)


# -- proving ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """A look computed again from the sums it stored."""

    rollout: str
    look: int
    equal: bool
    stored: dict[str, Any]
    computed: dict[str, Any]


def recompute(store: Store, rollout: str) -> Recomputed:
    """Recompute the look that decided, or the newest one while it runs. Raises: ThingNotFound without any look."""
    table = schema.look
    with store.read() as tx:
        row = find(store, tx, rollout)
        number = (row.decision or {}).get("look")
        query = sa.select(table).where(table.c.workspace == store.workspace, table.c.rollout == rollout)
        if number is not None:
            query = query.where(table.c.look == number)
        found = tx.execute(query.order_by(table.c.look.desc()).limit(1)).first()
    if found is None:
        raise ThingNotFound(f"{rollout} has taken no look yet, so there is nothing to recompute")
    strata: Sequence[Sum] = [Sum(**s) for s in found.sums["strata"]]
    verdict = judge(Plan.from_dict(row.plan), strata, Moment.from_dict(found.sums["moment"])).as_dict()
    return Recomputed(
        rollout=rollout, look=found.look, equal=_figures(verdict) == _figures(found.decision), stored=found.decision,
        computed=verdict,
    )  # fmt: skip


def _figures(value: Any) -> Any:
    """A decision without its sentences: how it is worded may change, what was decided and from which figures not."""
    if isinstance(value, dict):
        return {name: _figures(item) for name, item in value.items() if name != "text"}
    return [_figures(item) for item in value] if isinstance(value, list) else value
