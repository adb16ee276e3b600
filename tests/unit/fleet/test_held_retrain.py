"""A retrain that meets a held table waits for it: it is no failed candidate, and is started again."""

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from fairway import clock
from fairway.contract.settings import RetrainSettings, Settings
from fairway.fleet import jobs as loop_jobs
from fairway.fleet import retrain, reviews
from fairway.monitor.resolved import as_dict
from fairway.registry import versions
from fairway.store import jobs, schema
from fairway.store.workspace import Workspace

FILES = {
    "fairway.toml": 'format = 1\nname = "m"\ntask = "binary"\ntarget = "y"\npositive = "yes"\nowner = "ana"\n'
    '[data]\nsource = "t.csv"\n[retrain]\nevery = "1h"\n',
    "contract.toml": 'format = 1\n[columns.x]\ntype = "int"\n[columns.y]\ntype = "category"\nvalues = ["no", "yes"]\n',
    "model.py": "def features(data):\n    return data\n\n\ndef train(X, y, params):\n    raise OSError('not here')\n",
}
SETTINGS = Settings(
    name="m", task="binary", target="y", positive="yes", owner="ana", retrain=RetrainSettings(every=timedelta(hours=1))
)


def rows(n: int) -> str:
    return "x,y\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(n))


class Loop:
    def __init__(self, root: Path) -> None:
        self.workspace = Workspace.create(root)
        self.store, self.root = self.workspace.store, root
        for name, text in FILES.items():
            (root / name).write_text(text)
        with self.store.write() as tx:
            row = {"model": "m", "settings": {}, "created_at": clock.now(), "project_path": str(root)}
            tx.execute(sa.insert(schema.model).values(workspace="default", **row))
            version = versions.NewVersion(
                model="m", project_path=str(root), run="run-1", artifact="a", dataset=None, contract="c",
                verdict="pass", metrics={}, checks=[], settings=as_dict(SETTINGS), trained_until=None, author="ana",
            )  # fmt: skip
            versions.register(self.store, tx, version)
        self.endpoint: Any = SimpleNamespace(model="m", champion=1)

    def act(self, now: datetime) -> bool:
        with self.store.write() as tx:
            return retrain.act(self.store, tx, self.endpoint, SETTINGS, now)

    def run(self) -> dict[str, Any]:
        """The job that is queued, and what came of it."""
        claim = jobs.claim(self.store, owner="test")
        assert claim is not None
        loop_jobs.run_job(self.workspace, claim)
        with self.store.read() as tx:
            row = tx.execute(sa.select(schema.job).where(schema.job.c.job == claim.job)).one()
        return dict(row._mapping)

    def state(self) -> str:
        with self.store.read() as tx:
            return str(tx.scalar(sa.select(schema.source_state.c.state)))


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_a_held_retrain_waits_and_goes_on(loop: Loop) -> None:
    (loop.root / "t.csv").write_text(rows(100))
    with loop.store.write() as tx:
        retrain.submit(loop.store, tx, "m", cause="schedule")
    ended = loop.run()
    assert ended["status"] == "failed" and "not here" in ended["error"] and loop.state() == "ok"

    (loop.root / "t.csv").write_text(rows(50))
    with loop.store.write() as tx:
        retrain.submit(loop.store, tx, "m", cause="review-9")
    ended = loop.run()
    assert (ended["status"], ended["result"]["verdict"]) == ("done", "held") and loop.state() == "held"
    with loop.store.read() as tx:
        questions = tx.execute(sa.select(schema.review.c.kind, schema.review.c.review)).all()
        assert len(retrain.attempts(loop.store, tx, "m")) == 1  # the held one is none
        assert retrain.anything(loop.store, tx, loop.endpoint, SETTINGS, clock.now())
    asked = [row.review for row in questions if row.kind == "source"]
    assert asked == [ended["result"]["review"]] and len(questions) == 2  # the other is about the failed candidate

    now = clock.now()
    assert not loop.act(now)  # its owner has not answered, and it was looked at just now
    assert loop.act(now + retrain.LOOK_AGAIN)
    assert not loop.act(now + 2 * retrain.LOOK_AGAIN)  # one is queued
    ended = loop.run()
    assert ended["result"]["verdict"] == "held" and ended["payload"]["cause"] == "review-9"

    reviews.answer(loop.store, asked[0], "accept", actor="ana")
    assert loop.act(clock.now())
    ended = loop.run()
    assert "not here" in ended["error"] and ended["payload"]["cause"] == "review-9" and loop.state() == "ok"


def test_a_table_that_recovers_closes_its_question(loop: Loop) -> None:
    (loop.root / "t.csv").write_text(rows(100))
    for n, verdict in ((100, "fail"), (50, "held"), (100, "fail")):
        (loop.root / "t.csv").write_text(rows(n))
        with loop.store.write() as tx:
            retrain.submit(loop.store, tx, "m", cause="schedule")
        assert loop.run()["result"]["verdict"] == verdict
    with loop.store.read() as tx:
        assert tx.scalar(sa.select(schema.review.c.answer).where(schema.review.c.kind == "source")) == "withdrawn"
    assert loop.state() == "ok"
