"""kill -9 of gateways and the worker under load: everything that was acknowledged is in the log, once."""

import random
import time
from pathlib import Path

import small_model
from ledger import Ledger, clients, compare, kill_one
from running import running

from fairway.store.gateways import wait_active
from fairway.store.workspace import Workspace

CONNECTIONS, KILLS = 16, 3


def test_what_was_acknowledged_is_logged_once(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(tmp_path / f"v{version}", leaf=leaf), version)
    rollout = {"champion": 1, "challenger": 2, "rollout": None, "shares": {"1": 0.5, "2": 0.5}, "shadows": [1, 2]}
    small_model.desire(workspace, epoch=1, **rollout)
    ledger, rng = Ledger(), random.Random(7)
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        with clients(served, ledger, CONNECTIONS):
            for who in ("gateway", "worker") * KILLS:
                time.sleep(rng.uniform(0.3, 1.0))
                kill_one(served, who, rng)
            time.sleep(1.0)
        assert len(ledger.answers) > 100 and ledger.failures == []
        served.ready()
    # After a graceful stop all segments are sealed; what a killed gateway left was sealed by its next life.
    with running(workspace) as served:
        served.ready()
        found = compare(workspace, ledger)
    assert (found.missing, found.double, found.other) == ([], [], [])
