"""`fairway rollback` under load: who asks after it has returned gets the version before, and nobody gets an error."""

import json
import subprocess
import sys
import time
from pathlib import Path

import small_model
from ledger import Ledger, clients
from running import Running, running

from fairway import clock
from fairway.store import audit
from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CLIENTS, PAUSE_S = 10, 0.1  # about 100 requests/s
GOAL_S, SPARE_S = 1.0, 5.0  # of the last answer, and what a busy machine may add


def rollback(served: Running, *options: str) -> tuple[float, dict[str, object]]:
    """The command as a person runs it: when it had returned, and what it said."""
    command = [sys.executable, "-m", "fairway.cli.main", "rollback", "small", "--json", *options]
    done = subprocess.run(command, cwd=served.workspace.root, capture_output=True, text=True, check=False, timeout=60)
    returned = clock.elapsed()
    assert done.returncode == 0, done.stderr
    return returned, json.loads(done.stdout)


def test_nobody_who_asks_after_it_gets_the_old_version(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(tmp_path / f"v{version}", leaf=leaf), version)
    small_model.desire(workspace, epoch=1, **small_model.served(2), previous=1)
    ledger, moves = Ledger(), []
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        with clients(served, ledger, CLIENTS, pause_s=PAUSE_S, same_row=True):
            time.sleep(1.0)
            for before, after in ((2, 1), (1, 2), (2, 1)):  # going back twice is where it began
                began = clock.elapsed()
                returned, said = rollback(served, "--why", "slow since noon")
                assert (said["before"], said["to"], said["gateways"]) == (before, after, 2)
                moves.append((began, returned, before, after))
                time.sleep(1.0)
        assert wait_active(workspace, "small", 4) == []
    assert (ledger.failures, ledger.refused, ledger.broken) == ([], [], [])
    assert len({entry.output for entry in ledger.requests}) == 2
    for place, (began, returned, before, after) in enumerate(moves):
        until = moves[place + 1][0] if place + 1 < len(moves) else float("inf")
        mine = [entry for entry in ledger.requests if entry.sent_at < until and entry.received_at >= began]
        sent_later = [entry for entry in mine if entry.sent_at > returned and entry.received_at < until]
        assert len(sent_later) > 20
        assert {entry.version for entry in sent_later} == {after}
        late = max((e.received_at - returned for e in mine if e.version == before), default=0.0)
        assert late <= GOAL_S + SPARE_S
    assert [entry.action for entry in audit.entries(workspace.store, subject="small")].count("rollback") == 3
