"""Whatever changes production or access leaves an entry: each public action is done, and its entry looked for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from keep_world import MODEL, SETTINGS

import fairway
from fairway import clock
from fairway.contract.settings import Settings
from fairway.fleet import reviews
from fairway.keep import erasure, gc, retention
from fairway.monitor.losses import Labels
from fairway.registry import versions
from fairway.rollout import asks, controller
from fairway.rollout.plan import Facts, Plan, plan_first, plan_rollout
from fairway.store import audit, heads, schema, tokens

SOURCE = Path(fairway.__file__).parent
MADE = Settings(name=MODEL, task="binary", target="left", positive="yes", entity="who", label_delay=timedelta(hours=6),
                risk="low", owner="ana")  # fmt: skip


class Actions:
    """A model with three versions, @1 live and past its guard."""

    def __init__(self, kept: Any) -> None:
        self.kept, self.store = kept, kept.workspace.store
        for number in (1, 2, 3):
            kept.version(artifact=kept.package(text=f"v{number}".encode()), settings={**SETTINGS, "name": MODEL})

    def start(self, number: int, plan: Plan, **more: Any) -> str:
        with self.store.write() as tx:
            return controller.start(
                self.store, tx, model=MODEL, challenger=number, plan=plan, settings=MADE, labels=Labels.of(MADE),
                actor="ana", now=clock.now(), **more,
            )  # fmt: skip

    def live(self) -> None:
        self.start(1, plan_first(MADE))

    def canary(self, **more: Any) -> str:
        self.live()
        return self.start(2, self.plan(), **more)

    @staticmethod
    def plan() -> Plan:
        return plan_rollout(MADE, Facts(traffic_per_day=2000.0, loss_mean=0.16, loss_sd=0.18, sd_diff=0.04))

    def ask(self, kind: Any, subject: str, choices: dict[str, str], **evidence: Any) -> str:
        with self.store.write() as tx:
            return asks.open_review(self.store, tx, model=MODEL, kind=kind, subject=subject, question="?",
                                    evidence=evidence, choices=choices, assignee="ana", now=clock.now())  # fmt: skip

    def answer(self, review: str, choice: str) -> None:
        reviews.answer(self.store, review, choice, actor="kim", why="because")


def _approve(a: Actions) -> None:
    rollout = a.canary(waiting=True)
    a.answer(a.ask("approve", rollout, {"approve": "", "reject": ""}), "approve")


def _reject(a: Actions) -> None:
    rollout = a.canary(waiting=True)
    a.answer(a.ask("approve", rollout, {"approve": "", "reject": ""}), "reject")


def _waive(a: Actions) -> None:
    rollout = a.canary()
    a.answer(a.ask("rollout", rollout, {"continue": "", "rollback": ""}, rule="timeout"), "continue")


def _ask_again(a: Actions) -> None:
    rollout = a.canary()
    a.ask("rollout", rollout, {"continue": ""}, rule="srm")
    a.ask("rollout", rollout, {"continue": "", "rollback": ""}, rule="srm")


def _pause_and_resume(a: Actions) -> None:
    a.canary()
    controller.pause(a.store, MODEL, actor="ana", now=clock.now())
    controller.resume(a.store, MODEL, actor="ana", now=clock.now())


def _finish(a: Actions) -> None:
    a.canary()
    controller.finish(a.store, MODEL, why="enough", actor="ana", now=clock.now())


def _rollback(a: Actions) -> None:
    a.canary()
    controller.rollback(a.store, MODEL, why="slow", actor="ana", now=clock.now())


def _settings(a: Actions) -> None:
    with a.store.write() as tx:
        versions.remember_model(a.store, tx, MODEL, "x", {**SETTINGS, "owner": "lee"}, actor="lee")


def _token(a: Actions) -> None:
    tokens.create(a.store, name="kim", roles=["viewer"], actor="ana")
    tokens.revoke(a.store, name="kim", actor="ana")


def _retention(a: Actions) -> None:
    from keep_world import request

    a.kept.fold(request("r", ["a"], at=datetime(2020, 1, 1, tzinfo=UTC)))
    retention.drop(a.kept.workspace, MODEL, keep=timedelta(days=1), now=clock.now())


def _erase(a: Actions) -> None:
    a.live()
    erasure.erase(a.kept.workspace, MODEL, entity="a", why="asked for", actor="ana", now=clock.now())


ACTIONS: dict[str, tuple[Callable[[Actions], Any], set[str]]] = {
    "register": (lambda a: None, {"version_registered"}),
    "first version": (lambda a: a.live(), {"rollout.plan", "rollout.first"}),
    "rollout": (lambda a: a.canary(), {"rollout.plan", "rollout.step"}),
    "approve": (_approve, {"review.open", "review.answer", "rollout.step"}),
    "reject": (_reject, {"review.answer", "rollout.end"}),
    "waive": (_waive, {"review.answer", "rollout.waive"}),
    "ask again": (_ask_again, {"review.open", "review.change"}),
    "pause and resume": (_pause_and_resume, {"rollout.pause", "rollout.resume"}),
    "finish": (_finish, {"rollout.promote"}),
    "rollback": (_rollback, {"rollback"}),
    "settings": (_settings, {"settings_changed"}),
    "tokens": (_token, {"token_created", "token_revoked"}),
    "gc": (lambda a: gc.collect(a.kept.workspace, actor="ana", delete=True), {"gc"}),
    "retention": (_retention, {"log_dropped"}),
    "erasure": (_erase, {"erasure_started", "dataset_erased", "version_erased", "endpoint.repacked", "erasure_done"}),
    "head": (lambda a: heads.sign(a.kept.workspace), {"audit_key_created"}),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_leaves_its_entry(kept: Any, name: str) -> None:
    act, wanted = ACTIONS[name]
    act(Actions(kept))
    assert wanted <= set(kept.actions()) and audit.verify(kept.workspace.store) is None
    assert all(row["actor"] for row in kept.rows(schema.audit))


def test_a_finish_past_the_gate_says_that_a_person_did_it(kept: Any) -> None:
    _finish(Actions(kept))
    entry = next(row for row in kept.rows(schema.audit) if row["action"] == "rollout.promote")
    assert (entry["actor"], entry["detail"]["why"], entry["detail"]["about"]) == ("ana", "enough", {"rule": "person"})


# Who writes what production and access are made of. Each of these modules records an entry beside what it writes;
# store/ moves whole workspaces, rows and entries together.
WRITERS = {
    "endpoint": {"rollout/traffic.py"},
    "rollout": {"rollout/controller.py", "rollout/moves.py", "keep/erasure_quotes.py"},
    "review": {"rollout/asks.py", "keep/erasure_quotes.py"},
    "token": {"store/tokens.py"},
    "version": {"registry/versions.py", "keep/erasure_data.py", "keep/erasure_quotes.py"},
    "audit": {"store/audit.py"},
    "erasure": {"keep/erasure_work.py"},
}


@pytest.mark.parametrize("table", WRITERS)
def test_production_and_access_are_written_only_where_entries_are(table: str) -> None:
    direct = re.compile(rf"(?:insert|update|delete|upsert|insert_new)\((?:tx, )?schema\.{table}\b")
    named = re.compile(rf"\btable = schema\.{table}\b")
    writes = re.compile(r"(?:sa\.(?:insert|update|delete)|store\.(?:upsert|insert_new))\((?:tx, )?table\b")
    found = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        functions = re.split(r"\n(?=(?:    )?(?:async )?def )", text)
        if any(direct.search(f) or (named.search(f) and writes.search(f)) for f in functions):
            found.add(path.relative_to(SOURCE).as_posix())
    assert {path for path in found if not path.startswith("store/m")} <= WRITERS[table]
