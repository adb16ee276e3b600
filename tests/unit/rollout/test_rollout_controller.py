from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fairway.contract.settings import RolloutSettings
from fairway.errors import RolloutRefused
from fairway.rollout import asks, controller
from fairway.rollout.plan import Facts, plan_first
from fairway.store import audit, schema


def looks(world: Any, rollout: str) -> list[Any]:
    with world.store.read() as tx:
        table = schema.look
        return list(tx.execute(sa.select(table).where(table.c.rollout == rollout).order_by(table.c.look)))


def reviews(world: Any) -> list[Any]:
    with world.store.read() as tx:
        return asks.open_reviews(world.store, tx)


def test_good_challenger_is_promoted_through_all_steps(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    rollout = world.begin(plan_for(world), 2)
    assert world.endpoint().shares == {"1": 0.99, "2": 0.01}
    assert world.endpoint().shadows == [1, 2]
    row = world.run(rollout, days=10, until=("guarding", "rolled_back"))
    assert row.phase == "guarding", row.decision
    endpoint = world.endpoint()
    assert (endpoint.champion, endpoint.previous, endpoint.shares) == (2, 1, {"2": 1.0})
    assert endpoint.shadows == [1] and endpoint.rollout == rollout
    assert row.decision["rule"] == "primary"
    assert {look.decision["step_to"] for look in looks(world, rollout)} >= {1, 2}
    row = world.run(rollout, days=2)
    assert row.phase == "promoted"
    assert world.endpoint().shadows == [] and world.endpoint().rollout is None
    assert row.decision["rule"] == "primary"  # the deciding look stays
    again = controller.recompute(world.store, rollout)
    assert again.equal and again.stored["decision"] == "promote"
    assert audit.verify(world.store) is None


def test_recompute_finds_changed_sums(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    rollout = world.begin(plan_for(world), 2)
    world.run(rollout, days=10, until=("guarding",))
    deciding = controller.recompute(world.store, rollout)
    with world.store.write() as tx:
        table = schema.look
        where = sa.and_(table.c.rollout == rollout, table.c.look == deciding.look)
        seen = tx.scalar(sa.select(table.c.sums).where(where))
        strata = [{**s, "sum": s["sum"] - 5.0} if s["metric"] == "primary_paired" else s for s in seen["strata"]]
        tx.execute(sa.update(table).where(where).values(sums={**seen, "strata": strata}))
    assert not controller.recompute(world.store, rollout).equal


def test_worse_challenger_is_not_promoted(make_world: Any, plan_for: Any) -> None:
    world = make_world(
        rollout=RolloutSettings(timeout=timedelta(days=4)),
        output=lambda version, p, noise: min(max(p + (0.25 if version == 2 else 0.0), 0.01), 0.99),
    )
    rollout = world.begin(plan_for(world), 2)
    row = world.run(rollout, days=5)
    assert row.phase == "rolled_back"
    assert row.decision["rule"] == "timeout"
    assert world.endpoint().champion == 1 and world.endpoint().shares == {"1": 1.0}
    assert controller.recompute(world.store, rollout).equal


def test_errors_roll_back_at_once(make_world: Any, plan_for: Any) -> None:
    world = make_world(fails=lambda version: 0.3 if version == 2 else 0.01)
    rollout = world.begin(plan_for(world), 2)
    row = world.run(rollout, days=10)
    assert row.phase == "rolled_back" and row.decision["rule"] == "errors"
    assert world.endpoint().shares == {"1": 1.0} and world.endpoint().rollout is None
    assert controller.recompute(world.store, rollout).equal


def test_errors_in_shadow_are_compared_on_the_same_rows(make_world: Any, plan_for: Any) -> None:
    world = make_world(
        rollout=RolloutSettings(shadow=timedelta(days=3)), fails=lambda version: 0.05 if version == 2 else 0.0
    )
    rollout = world.begin(plan_for(world), 2)
    assert world.endpoint().shares == {"1": 1.0} and world.endpoint().shadows == [2]
    row = world.run(rollout, days=3)
    assert row.phase == "rolled_back" and row.decision["rule"] == "errors" and row.step == 0


def test_guard_takes_back_a_promoted_version_and_asks(make_world: Any, plan_for: Any) -> None:
    broken = {"now": False}
    world = make_world(fails=lambda version: 0.2 if version == 2 and broken["now"] else 0.0)
    rollout = world.begin(plan_for(world), 2)
    assert world.run(rollout, days=10, until=("guarding",)).phase == "guarding"
    broken["now"] = True
    row = world.run(rollout, days=2)
    assert row.phase == "rolled_back" and world.endpoint().champion == 1
    (review,) = reviews(world)
    assert review.kind == "retrain" and "guard" in review.question
    with world.store.read() as tx:
        assert tx.execute(sa.select(schema.alarm)).one().action["row"] == 1


def test_first_version_is_live_at_once_and_errors_take_it_off(make_world: Any) -> None:
    world = make_world(champion=False, fails=lambda version: 0.2)
    rollout = world.begin(plan_first(world.made), 1)
    endpoint = world.endpoint()
    assert (endpoint.champion, endpoint.shares, endpoint.state) == (1, {"1": 1.0}, "live")
    row = world.run(rollout, days=1)
    assert row.phase == "rolled_back"
    assert (world.endpoint().state, world.endpoint().champion, world.endpoint().shares) == ("no_champion", None, {})


def test_sample_ratio_mismatch_freezes_and_asks(make_world: Any, plan_for: Any) -> None:
    world = make_world(broken_split=True, rollout=RolloutSettings(shares=(0.5,)))
    rollout = world.begin(plan_for(world), 2)
    row = world.run(rollout, days=3, until=("paused",))
    assert row.phase == "paused"
    (review,) = reviews(world)
    assert review.evidence["rule"] == "srm"
    shares = world.endpoint().shares
    world.hour()
    assert world.endpoint().shares == shares
    with pytest.raises(RolloutRefused, match="frozen"):
        controller.resume(world.store, "late", actor="ana", now=world.now)
    with world.store.write() as tx:
        controller.waive(world.store, tx, rollout, "srm", actor="ana", now=world.now, why="known")
    assert world.rollout(rollout).phase == "running"


def test_shifted_scores_ask_and_go_on_when_waived(make_world: Any, plan_for: Any) -> None:
    world = make_world(output=lambda version, p, noise: min(p + (0.04 if version == 2 else 0.0), 0.99))
    rollout = world.begin(plan_for(world, score_mean=0.17, score_sd=0.14), 2)
    world.run(rollout, days=4)
    (review,) = reviews(world)
    assert review.evidence["rule"] == "score" and "continue" in review.choices
    held_at = world.rollout(rollout).step
    with world.store.write() as tx:
        controller.waive(world.store, tx, rollout, "score", actor="ana", now=world.now, why="wanted")
    world.run(rollout, days=4, until=("guarding",))
    assert world.rollout(rollout).step > held_at


def test_ticks_are_idempotent(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    rollout = world.begin(plan_for(world), 2)
    for _ in range(30):
        world.hour()
    before = (dict(world.rollout(rollout)._mapping), len(looks(world, rollout)), world.endpoint().epoch)
    changes = [controller.tick(world.store, world.now) for _ in range(10)]
    assert not any(changes[1:])
    assert (dict(world.rollout(rollout)._mapping), len(looks(world, rollout)), world.endpoint().epoch) == before


def test_pause_and_resume(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    rollout = world.begin(plan_for(world), 2)
    world.hour()
    deadline = world.rollout(rollout).state["deadline_at"]
    controller.pause(world.store, "late", actor="ana", now=world.now, why="freeze for the holiday")
    count = len(looks(world, rollout))
    for _ in range(5):
        world.hour()
    assert world.rollout(rollout).phase == "paused" and len(looks(world, rollout)) == count
    controller.resume(world.store, "late", actor="ana", now=world.now)
    assert world.rollout(rollout).state["deadline_at"] > deadline
    assert world.run(rollout, days=10, until=("guarding",)).phase == "guarding"


def test_finish_and_rollback_by_a_person(make_world: Any, plan_for: Any) -> None:
    world = make_world(versions=3)
    rollout = world.begin(plan_for(world), 2)
    moved = controller.finish(world.store, "late", why="campaign starts", actor="ana", now=world.now)
    assert (moved.before, moved.to) == (1, 2) and world.rollout(rollout).phase == "guarding"
    back = controller.rollback(world.store, "late", why="slow", actor="ana", now=world.now)
    assert (back.before, back.to) == (2, 1) and world.rollout(rollout).phase == "rolled_back"
    gone = controller.rollback(world.store, "late", why="all wrong", actor="ana", now=world.now)
    assert gone.to is None and world.endpoint().state == "no_champion"
    with pytest.raises(RolloutRefused, match="no champion"):
        controller.rollback(world.store, "late", why=None, actor="ana", now=world.now)


def test_a_guard_that_ends_keeps_the_look_that_ended_it(make_world: Any) -> None:
    world = make_world()
    decision = world.rollout("rollout-1").decision
    assert (decision["decision"], decision["rule"]) == ("promote", "guard") and decision["checks"]
    again = controller.recompute(world.store, "rollout-1")
    assert again.equal and again.look == decision["look"]


def test_a_decision_is_equal_by_its_figures_not_its_words(make_world: Any) -> None:
    world = make_world()
    with world.store.write() as tx:
        for look in looks(world, "rollout-1"):
            table = schema.look
            changed = {**look.decision, "text": "said otherwise before"}
            tx.execute(sa.update(table).where(table.c.look == look.look).values(decision=changed))
    assert controller.recompute(world.store, "rollout-1").equal


def test_rollback_without_a_rollout_goes_to_the_previous_and_can_be_undone(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    rollout = world.begin(plan_for(world), 2)
    controller.finish(world.store, "late", why="now", actor="ana", now=world.now)
    world.run(rollout, days=2, until=("promoted",))
    back = controller.rollback(world.store, "late", why="slow", actor="ana", now=world.now)
    assert (back.before, back.to, back.rollout) == (2, 1, None)
    assert world.endpoint().previous == 2 and world.endpoint().shares == {"1": 1.0}


def test_one_rollout_at_a_time(make_world: Any, plan_for: Any) -> None:
    world = make_world(versions=3)
    world.begin(plan_for(world), 2)
    with pytest.raises(RolloutRefused, match="end it first"):
        world.begin(plan_for(world), 3)


def test_waiting_moves_nothing_until_approved(make_world: Any, plan_for: Any) -> None:
    world = make_world()
    epoch = world.endpoint().epoch
    rollout = world.begin(plan_for(world), 2, waiting=True)
    world.hour()
    assert world.rollout(rollout).phase == "waiting" and world.endpoint().epoch == epoch
    with world.store.write() as tx:
        controller.approve(world.store, tx, rollout, actor="kim", now=world.now)
    assert world.rollout(rollout).phase == "running" and world.endpoint().challenger == 2


def test_without_labels_a_person_is_asked_at_the_end(make_world: Any, plan_for: Any) -> None:
    world = make_world(settings={"label_delay": None})
    world.output = lambda version, p, noise: p
    rollout = world.begin(plan_for(world), 2)
    world.run(rollout, days=6)
    (review,) = reviews(world)
    assert review.evidence["rule"] == "no labels" and "promote" in review.choices


def test_independent_arms_decide_when_the_label_depends_on_the_answer(make_world: Any) -> None:
    from fairway.rollout.plan import plan_rollout

    world = make_world(per_hour=200, rollout=RolloutSettings(label_depends_on_answer=True, shares=(0.5,), margin=0.03))
    plan = plan_rollout(world.made, Facts(traffic_per_day=4800.0, loss_mean=0.12, loss_sd=0.15))
    assert plan.decides and not plan.paired
    rollout = world.begin(plan, 2)
    assert world.endpoint().shadows == []
    row = world.run(rollout, days=10, until=("guarding", "rolled_back"))
    assert row.phase == "guarding", row.decision
    assert controller.recompute(world.store, rollout).equal
