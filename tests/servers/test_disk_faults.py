"""Commands on a disk that fails at their N-th change: nothing is broken by it, and the same command succeeds again.

A few points of each command; bench/bench_disk_faults.py sweeps all of them.
"""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faulty"))
sys.path.insert(0, str(Path(__file__).parents[1] / "journeys"))
sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from postgres_server import PostgresServer, binaries
from sweep import KINDS, Disk, sweep
from swept import Command, commands

SEED = 3
POINTS = 3


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Disk, dict[str, Command]]]:
    if shutil.which("gcc") is None or binaries() is None:
        pytest.skip("no gcc or no postgres on this machine (Debian: apt-get install gcc libc6-dev postgresql)")
    folder = tmp_path_factory.mktemp("swept")
    server = PostgresServer()
    try:
        yield Disk(folder), commands(folder, server.new_database)
    finally:
        server.remove()


@pytest.mark.parametrize("name", ["train", "deploy", "rollback", "gc", "move"])
def test_a_fault_at_any_change_breaks_nothing(name: str, swept: tuple[Disk, dict[str, Command]]) -> None:
    disk, known = swept
    command = known[name]
    with command.prepare() as root:
        whole = disk.run(command.arguments(), root)
        assert whole.code == 0, whole.said
        assert command.holds(root) == ""
    assert whole.changes > 10
    draw = random.Random(f"{SEED} {name}")
    found = []
    for place, kind in enumerate(draw.sample(KINDS, len(KINDS))[:POINTS]):
        # One point in each third of the command: its beginning and its end differ most.
        low, high = place * whole.changes // POINTS, (place + 1) * whole.changes // POINTS
        at = draw.randint(low + 1, high)
        found += sweep(disk, command.prepare, command.arguments, [at], [kind], holds=command.holds)
    assert [f for f in found if f.trouble] == []
