"""A backup taken while a workspace serves under load: what was acknowledged before is in it, once, and whole."""

import time
from pathlib import Path

import small_model
from ledger import Ledger, clients, compare
from running import row, running

from fairway.data.log import fold
from fairway.keep.backup import backup
from fairway.keep.doctor import examine
from fairway.keep.restore import restore
from fairway.serve.spool import sealed_segments
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CONNECTIONS, BACKUPS = 8, 3


def test_a_copy_taken_under_load_is_consistent(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    small_model.register(workspace, small_model.make_package(tmp_path / "v1"), 1)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    ledger = Ledger()
    acknowledged: list[dict[str, object]] = []
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        with clients(served, ledger, CONNECTIONS, pause_s=0.03):  # some 200 requests a second
            for number in range(BACKUPS):
                time.sleep(0.5)
                acknowledged.append(dict(ledger.answers))
                backup(workspace, tmp_path / (f"copy{number}.tar" if number % 2 else f"copy{number}"))
        assert ledger.failures == [] and len(acknowledged[-1]) > 100
    for number, before in enumerate(acknowledged):
        restore(tmp_path / (f"copy{number}.tar" if number % 2 else f"copy{number}"), tmp_path / f"new{number}")
        there = Workspace(tmp_path / f"new{number}")
        assert [f for f in examine(there) if f.verdict == "fail"] == []
        fold(there, sealed_segments(there.dir("spool")))
        seen = Ledger()
        seen.answers.update((i, ledger.answers[i]) for i in before)
        found = compare(there, seen)
        assert (found.missing, found.double, found.other) == ([], [], []) and found.logged >= len(before)
        there.store.close()
    with running(Workspace(tmp_path / "new0")) as served:  # it goes on as if nothing had been
        served.ready()
        answer = served.predict([row(who="after")])
        assert answer.status_code == 200 and answer.json()["outputs"][0]["version"] == 1
