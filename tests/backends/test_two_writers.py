"""Many processes register and promote at once (20 of them, 50 times each: bench/bench_store.py)."""

from pathlib import Path

import pytest
from two_writers import faults, run_all

from fairway.store.base import Store

PROCESSES, TIMES = 4, 10


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_versions_have_no_gap_and_one_is_production(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    assert run_all(url, processes=PROCESSES, times=TIMES) == [0] * PROCESSES
    with Store(url) as store:
        assert faults(store, expected=PROCESSES * TIMES) == []
