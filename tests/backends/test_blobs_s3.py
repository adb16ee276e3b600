"""Blobs in a bucket: the whole suite on a real HTTP server with S3's interface, and what a network can do wrong."""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store
from s3_server import Fault, FaultyProxy, S3Server

from fairway import clock
from fairway.data import log, segment
from fairway.errors import StoreError, StoreUnavailable, TamperFound, UsageError
from fairway.process.worker import Worker
from fairway.store import blob_cache
from fairway.store.s3 import S3Blobs
from fairway.store.workspace import Workspace
from fairway.testing.blob_suite import BlobSuite

PART = 5 * 1024 * 1024
LARGE = 2 * PART + 7


def raw(url: str) -> S3Store:
    """The bucket's folder of workspace "default", past fairway."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix=f"{prefix}/default", client_options={"allow_http": True})


class TestS3(BlobSuite):
    killed_puts = 3
    processes = 3

    @pytest.fixture
    def make(self, s3_url: str, tmp_path: Path) -> Callable[..., S3Blobs]:
        return functools.partial(S3Blobs, s3_url, cache=tmp_path / "cache", part_bytes=PART)

    @pytest.fixture
    def damage(self, s3_url: str) -> Callable[[str, bytes], Any]:
        return lambda digest, data: obstore.put(raw(s3_url), f"{digest[:2]}/{digest}", data)


@pytest.fixture
def proxy(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    made = FaultyProxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def blobs(proxy: FaultyProxy, s3_url: str, tmp_path: Path) -> S3Blobs:
    """Through the proxy; a request that does not go on for half a second is given up."""
    return S3Blobs(s3_url, cache=tmp_path / "cache", part_bytes=PART, timeout_s=0.5)


def is_put(method: str, path: str) -> bool:
    return method == "PUT"


def is_get(method: str, path: str) -> bool:
    return method == "GET"


@pytest.mark.parametrize(("kind", "times"), [("500", 2), ("503", 2), ("cut", 2), ("lost", 1), ("lost", 2), ("slow", 2)])
def test_a_put_outlives_faults(blobs: S3Blobs, proxy: FaultyProxy, kind: str, times: int) -> None:
    proxy.faults = [Fault(kind, times, is_put, seconds=0.6)]
    digest = blobs.put(b"data")
    assert blobs.verify(digest) == 4 and list(blobs) == [digest]
    assert [done for method, _, done in proxy.seen if method == "PUT"][:times] == [kind] * times


@pytest.mark.parametrize("read", ["get", "path", "verify"])
@pytest.mark.parametrize("kind", ["500", "503", "cut", "slow", "half", "wrong"])
def test_a_read_outlives_faults(blobs: S3Blobs, proxy: FaultyProxy, kind: str, read: str) -> None:
    data = os.urandom(100_000)
    digest = blobs.put(data)
    proxy.faults = [Fault(kind, 2, is_get, seconds=0.6)]
    found = getattr(blobs, read)(digest)
    assert found == {"get": data, "verify": len(data)}.get(read, found)
    assert blobs.path(digest).read_bytes() == data
    assert [done for method, _, done in proxy.seen if method == "GET"][:2] == [kind] * 2


@pytest.mark.parametrize("kind", ["500", "503", "cut"])
def test_a_listing_goes_on_where_it_broke(blobs: S3Blobs, proxy: FaultyProxy, kind: str) -> None:
    digests = sorted(blobs.put(str(i).encode()) for i in range(7))
    proxy.faults = [Fault(kind, 2, is_get)]
    assert [entry.digest for page in blobs.pages(size=3) for entry in page] == digests


@pytest.mark.parametrize("kind", ["500", "503", "cut", "lost", "slow"])
def test_a_part_of_a_large_put_is_sent_again(blobs: S3Blobs, proxy: FaultyProxy, kind: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"z" * LARGE)
    proxy.faults = [Fault(kind, 2, lambda method, path: "partNumber=2" in path, seconds=0.6)]
    digest = blobs.put_file(tmp_path / "large")
    assert blobs.verify(digest) == LARGE
    assert any("uploads" in path for _, path, _ in proxy.seen)


@pytest.mark.parametrize("kind", ["500", "slow", "cut"])
def test_faults_that_do_not_end_are_an_error_and_leave_nothing(
    blobs: S3Blobs, proxy: FaultyProxy, kind: str, tmp_path: Path
) -> None:
    quick = S3Blobs("s3://" + blobs.where.removeprefix("s3://"), cache=tmp_path / "c", attempts=1, timeout_s=0.2)
    proxy.faults = [Fault(kind, 10_000, seconds=0.3)]
    with pytest.raises(StoreUnavailable, match=r"can't be written to s3://bucket.*nothing half was kept"):
        quick.put(b"data")
    proxy.faults = []
    assert list(blobs) == []


def test_wrong_bytes_each_time_are_the_blobs_own(blobs: S3Blobs, proxy: FaultyProxy) -> None:
    digest = blobs.put(b"data")
    proxy.faults = [Fault("wrong", 1000, is_get)]
    with pytest.raises(TamperFound, match=digest[:12]):
        blobs.get(digest)
    with pytest.raises(TamperFound):
        blobs.path(digest)
    proxy.faults = []
    assert blobs.get(digest) == b"data"


def test_denied_access_is_said_at_once(blobs: S3Blobs, proxy: FaultyProxy) -> None:
    digest = blobs.put(b"data")
    proxy.faults = [Fault("403", 1000)]
    for ask in (lambda: blobs.put(b"other"), lambda: blobs.get(digest), lambda: digest in blobs):
        before = len(proxy.seen)
        with pytest.raises(StoreUnavailable, match=r"access denied at http://127.*credentials may have ended"):
            ask()
        assert len(proxy.seen) - before <= 2


def test_a_bucket_that_is_not_there_is_named(s3_url: str, tmp_path: Path) -> None:
    blobs = S3Blobs("s3://no-such-bucket/x", cache=tmp_path)
    for ask in (lambda: blobs.put(b"x"), lambda: blobs.get("0" * 64), lambda: list(blobs)):
        with pytest.raises(StoreUnavailable, match="there is no bucket 'no-such-bucket'"):
            ask()


@pytest.mark.parametrize("url", ["s3://", "s3:bucket", "http://bucket/x", "s3://bucket?region=x"])
def test_a_url_that_names_no_bucket_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="write s3://bucket/prefix"):
        S3Blobs(url, cache=tmp_path)


def test_a_file_that_changes_while_it_is_sent_gets_no_name(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, path = S3Blobs(s3_url, cache=tmp_path / "cache", part_bytes=PART), tmp_path / "growing"
    path.write_bytes(b"a" * LARGE)
    head = blobs._head

    def changed_meanwhile(digest: str) -> Any:
        with path.open("r+b") as file:
            file.seek(LARGE - 1)
            file.write(b"b")
        return head(digest)

    monkeypatch.setattr(blobs, "_head", changed_meanwhile)
    with pytest.raises(StoreUnavailable, match="changed while it was stored"):
        blobs.put_file(path)
    assert [meta["path"] for page in obstore.list(raw(s3_url)) for meta in page] == []


def test_what_is_there_is_not_sent_again(blobs: S3Blobs, proxy: FaultyProxy) -> None:
    blobs.put(b"data")
    proxy.seen.clear()
    blobs.put(b"data")
    assert [method for method, _, _ in proxy.seen] == ["HEAD"]


# -- local copies ----------------------------------------------------------------------------------------------------


def test_a_local_copy_is_fetched_once_and_verified(
    blobs: S3Blobs, proxy: FaultyProxy, s3_url: str, tmp_path: Path
) -> None:
    digest = blobs.put(b"data" * 1000)
    path = blobs.path(digest)
    proxy.seen.clear()
    assert blobs.path(digest) == path and blobs.get(digest) == b"data" * 1000 and proxy.seen == []
    path.write_bytes(b"tata" * 1000)
    assert blobs.get(digest) == b"data" * 1000 and path.read_bytes() == b"data" * 1000
    path.write_bytes(b"tata" * 1000)
    other = S3Blobs(s3_url, cache=tmp_path / "cache")
    assert other.path(digest).read_bytes() == b"data" * 1000


def test_local_copies_are_bounded(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = S3Blobs(s3_url, cache=tmp_path / "cache", cache_bytes=100_000)
    digests = [blobs.put(bytes([n]) * 10_000) for n in range(30)]
    paths = [blobs.path(digest) for digest in digests]
    assert all(path.exists() for path in paths), "each was asked for within ten minutes: none is removed"
    monkeypatch.setattr(blob_cache, "IN_USE", timedelta(0))
    for digest in digests:
        blobs.path(digest).read_bytes()
        blobs.get(blobs.put(os.urandom(20_000)))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert 50_000 <= sum(path.stat().st_size for path in files) <= 130_000


def test_a_full_disk_under_the_cache_does_not_hide_a_blob(s3_url: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    blobs = S3Blobs(s3_url, cache=tmp_path / "cache")
    digest = blobs.put(b"data")
    assert blobs.get(digest) == b"data"
    with pytest.raises(StoreError, match=r"the cache .* can't be written"):
        blobs.path(digest)


def test_an_old_blob_that_is_put_again_counts_as_new(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = S3Blobs(s3_url, cache=tmp_path / "cache")
    digest = blobs.put(b"data")
    before = next(blobs.pages())[0].stored_at
    later = clock.machine_now() + timedelta(hours=13)
    monkeypatch.setattr(clock, "machine_now", lambda: later)
    blobs.put(b"data")
    (found,) = next(blobs.pages())
    assert found.digest == digest and found.stored_at >= before


# -- the log ---------------------------------------------------------------------------------------------------------


def test_a_fold_waits_for_the_bucket_and_keeps_nobody_waiting(
    proxy: FaultyProxy, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRWAY_BLOBS", s3_url)
    workspace = Workspace.create(tmp_path / "ws")
    sealed = workspace.dir("spool") / "sealed"
    sealed.mkdir()
    connection = segment.create(sealed / "g1-a-1.seg", gateway="g1", opened_us=1)
    now_us = clock.to_us(clock.now())
    notes = [segment.ColumnNote("trip", "string", "", "plain"), segment.ColumnNote("km", "float", "", "plain")]
    records = [
        segment.Columns("contract-1", "trips", notes),
        segment.Events("trips", "contract-1", now_us, [segment.EventRow("t1", now_us, {"trip": "t1", "km": 3.5})]),
    ]
    with connection:
        connection.executemany("insert into record(kind, data) values(?, ?)", [segment.encode(r) for r in records])
    segment.close(connection)
    worker = Worker(workspace, observers=(), tick=lambda workspace, now: False)

    proxy.faults = [Fault("503", 10_000)]
    others: list[float] = []

    def write_meanwhile() -> None:
        while not stopped.wait(0.05):
            began_s = clock.elapsed()
            with workspace.store.write() as tx:
                workspace.store.add_to_counter(tx, "written")
            others.append(clock.elapsed() - began_s)

    stopped = threading.Event()
    thread = threading.Thread(target=write_meanwhile)
    thread.start()
    try:
        with pytest.raises(StoreUnavailable, match="can't be written to s3://"):
            worker.fold()
    finally:
        stopped.set()
        thread.join(10)
    assert len(others) > 10, "the writer's place was free while the bucket was asked again and again"
    assert [path.name for path in sealed.iterdir()] == ["g1-a-1.seg"]
    assert log.source_events(workspace, "trips", clock.now()) is None

    proxy.faults = []
    assert worker.fold() and not list(sealed.iterdir())
    events = log.source_events(workspace, "trips", clock.now())
    assert events is not None and events["km"].to_list() == [3.5]
    assert not (workspace.folder / "blobs").exists() and not (workspace.folder / "log").exists()
