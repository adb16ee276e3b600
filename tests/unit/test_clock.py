"""Real and virtual time."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway import clock

START = datetime(2014, 5, 1, tzinfo=UTC)


def test_a_virtual_clock_is_seen_by_other_processes_and_never_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    virtual = clock.VirtualClock(tmp_path / "clock", START)
    monkeypatch.setenv(clock.VARIABLE, str(virtual.path))
    virtual.move(START + timedelta(hours=1))
    assert clock.now() == START + timedelta(hours=1) and clock.is_virtual()
    code = "from fairway import clock; print(clock.iso(clock.now()))"
    seen = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "2014-05-01T01:00:00Z"
    with pytest.raises(ValueError, match="can't go back"):
        virtual.move(START)


def test_real_time_is_aware_utc() -> None:
    assert clock.now().tzinfo is UTC and not clock.is_virtual()


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_round_trip(at: datetime) -> None:
    assert clock.from_us(clock.to_us(at)) == at
    assert clock.parse_iso(clock.iso(at)) == at


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        clock.to_us(datetime(2014, 1, 1))
    with pytest.raises(ValueError, match="no time zone"):
        clock.parse_iso("2014-01-01T00:00:00")
