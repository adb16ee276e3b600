"""Which rows are held back."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from fairway.contract.settings import Settings, SplitSettings
from fairway.errors import DataError
from fairway.path.split import newer_than_both, places, split

START = datetime(2024, 1, 1, tzinfo=UTC)


def settings(**values) -> Settings:
    return Settings(name="m", task="binary", target="y", **values)


def timed(n: int = 100, each: int = 4) -> pl.DataFrame:
    return pl.DataFrame({"at": [START + timedelta(hours=i // each) for i in range(n)], "y": [0] * n})


def test_the_newest_share_is_held_back_and_equal_times_stay_together():
    part = split(timed(), settings(at="at"))
    assert part.test.sum() == 20
    assert part.trained_until == START + timedelta(hours=19)
    part = split(timed(each=7), settings(at="at"))
    assert timed(each=7)["at"].filter(part.test).min() > part.trained_until


def test_a_date_holds_back_what_is_not_before_it():
    start = START + timedelta(hours=10)
    part = split(timed(), settings(at="at", split=SplitSettings(test_from=start.isoformat())))
    assert part.test.tolist() == (timed()["at"] >= start).to_list()


def test_the_hash_of_the_entity_decides_alone():
    frame = pl.DataFrame({"who": [f"c{i % 500}" for i in range(1000)], "y": [0] * 1000})
    one = split(frame, settings(entity="who"))
    assert 0.12 < one.test.mean() < 0.28
    assert one.trained_until is None
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    held = set(frame["who"].filter(one.test))
    assert set(shuffled["who"].filter(split(shuffled, settings(entity="who")).test)) == held
    assert not held & set(frame["who"].filter(~one.test))


def test_the_place_of_an_entity_never_changes():
    known = places(pl.DataFrame({"who": ["7590-VHVEG"]}), settings(entity="who"))
    assert known[0] == pytest.approx(0.9530182, abs=1e-7)  # sha256sum, its first 16 digits over 2**64


def test_rows_newer_than_both_trainings():
    frame = timed()
    part = split(frame, settings(at="at"))
    before = newer_than_both(frame, part, settings(at="at"), trained_until=START, test_share=0.2)
    assert before.all()
    later = START + timedelta(hours=22)
    some = newer_than_both(frame, part, settings(at="at"), trained_until=later, test_share=0.2)
    assert some.tolist() == [at > later for at in frame["at"].filter(part.test)]
    assert not newer_than_both(frame, part, settings(at="at"), trained_until=None, test_share=0.2).any()
    people = pl.DataFrame({"who": [f"c{i}" for i in range(1000)], "y": [0] * 1000})
    part = split(people, settings(entity="who"))
    smaller = newer_than_both(people, part, settings(entity="who"), trained_until=None, test_share=0.1)
    assert np.array_equal(smaller, places(people, settings(entity="who"))[part.test] < 0.1)


def test_an_empty_side_is_refused():
    with pytest.raises(DataError, match="at least"):
        split(timed(3), settings(at="at"))
    with pytest.raises(DataError, match="no row is held back"):
        split(timed(), settings(at="at", split=SplitSettings(test_from="2030-01-01")))
    with pytest.raises(DataError, match="left to train on"):
        split(timed(each=1000), settings(at="at"))
