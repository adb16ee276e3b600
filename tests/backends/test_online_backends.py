"""One suite for the online state, on all its backends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.serve.online import OnlineStore, Slot, open_online
from fairway.testing import OnlineSuite
from fairway.testing.online_suite import ask, event, keys

STOPS = Slot("trips", "stop")


class TestSqlite(OnlineSuite):
    @pytest.fixture
    def online(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = open_online(tmp_path / "online.db")
        yield store
        store.close()


class TestPostgres(OnlineSuite):
    @pytest.fixture
    def online(self, postgres_url: str) -> Iterator[OnlineStore]:
        store = open_online(postgres_url)
        yield store
        store.close()


class TestRedis(OnlineSuite):
    @pytest.fixture
    def online(self, redis_url: str) -> Iterator[OnlineStore]:
        store = open_online(redis_url)
        yield store
        store.close()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "online.db")
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_two_gateways_share_what_they_put(place: str) -> None:
    one, two = open_online(place), open_online(place)
    one.watch([STOPS])
    one.put("trips", [event("t1", -5)])
    assert two.put("trips", [event("t1", -5), event("t2", -4)]) == 1
    assert keys(one, ask(0)) == keys(two, ask(0)) == [["t1", "t2"]]
    two.watch([Slot("trips", "line")])
    one.put("trips", [event("t3", -3, line="x")])
    found = ask(0, stop="x", slot=Slot("trips", "line"))
    assert keys(one, found) == keys(two, found) == [["t3"]]
    one.close()
    two.close()
    again = open_online(place)
    assert keys(again, ask(0, last=True)) == [["t3"]]
    again.close()


def test_workspaces_that_share_a_server_do_not_meet(postgres_url: str, redis_url: str) -> None:
    for url in (postgres_url, redis_url):
        one, two = open_online(url, workspace="one"), open_online(url, workspace="two")
        one.watch([STOPS])
        one.put("trips", [event("t1", -5)])
        assert keys(one, ask(0)) == [["t1"]] and keys(two, ask(0)) == [[]]
        one.close()
        two.close()
