"""What every place for blobs must do, as tests: subclass `BlobSuite`, say how one is made, and run pytest."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairway import clock
from fairway.errors import StoreError, TamperFound, UsageError
from fairway.store.blobs import Blobs

Make = Callable[..., Blobs]


class BlobSuite:
    """A backend proves itself with two fixtures:

        class TestLocal(BlobSuite):
            @pytest.fixture
            def make(self, tmp_path):
                return functools.partial(LocalBlobs, tmp_path / "blobs")
            @pytest.fixture
            def damage(self, tmp_path):
                return lambda digest, data: (tmp_path / "blobs/default" / digest[:2] / digest).write_bytes(data)

    make: called with workspace=NAME, gives that workspace's blobs; it is pickled for other processes, and must give
    the same place there. damage: overwrites a blob of workspace "default" with other bytes, past the interface.
    large_bytes: more than the backend sends or writes in one piece. killed_puts, processes: how often and how many.
    """

    large_bytes = 11 * 1024 * 1024 + 7
    killed_puts = 4
    processes = 4

    @pytest.fixture
    def blobs(self, make: Make) -> Blobs:
        return make(workspace="default")

    # -- round trip --------------------------------------------------------------------------------------------------

    def test_bytes_come_back_under_their_hash(self, blobs: Blobs) -> None:
        data = bytes(range(256))
        digest = blobs.put(data)
        assert digest == hashlib.sha256(data).hexdigest()
        assert blobs.get(digest) == data
        assert digest in blobs and blobs.size(digest) == blobs.verify(digest) == 256

    def test_an_empty_blob_is_a_blob(self, blobs: Blobs, tmp_path: Path) -> None:
        digest = blobs.put(b"")
        (tmp_path / "empty").touch()
        assert blobs.put_file(tmp_path / "empty") == digest
        assert blobs.get(digest) == b"" and blobs.size(digest) == 0 and digest in blobs
        assert blobs.path(digest).read_bytes() == b""

    def test_a_large_blob_comes_back_whole(self, blobs: Blobs, tmp_path: Path) -> None:
        data = random.Random(1).randbytes(self.large_bytes)
        (tmp_path / "large").write_bytes(data)
        digest = blobs.put_file(tmp_path / "large")
        assert digest == hashlib.sha256(data).hexdigest()
        assert blobs.get(digest) == data and blobs.size(digest) == blobs.verify(digest) == len(data)
        with blobs.open(digest) as file:
            file.seek(-7, os.SEEK_END)
            assert file.read() == data[-7:]
        assert blobs.put(data) == digest

    def test_a_file_is_read_and_left_alone(self, blobs: Blobs, tmp_path: Path) -> None:
        path = tmp_path / "name with blanks é.bin"
        path.write_bytes(b"file")
        assert blobs.get(blobs.put_file(path)) == b"file"
        assert path.read_bytes() == b"file"

    def test_the_same_bytes_twice_are_one_blob(self, blobs: Blobs) -> None:
        first = blobs.put(b"same")
        before = next(blobs.pages())[0].stored_at
        assert blobs.put(b"same") == first and list(blobs) == [first]
        assert next(blobs.pages())[0].stored_at >= before

    def test_a_path_is_a_file_with_the_bytes(self, blobs: Blobs) -> None:
        digest = blobs.put(b"to be scanned")
        assert blobs.path(digest).read_bytes() == b"to be scanned"
        assert blobs.path(digest) == blobs.path(digest)

    def test_a_fetched_file_has_the_bytes_or_is_not_there(
        self, blobs: Blobs, damage: Callable[[str, bytes], Any], tmp_path: Path
    ) -> None:
        digest = blobs.put(b"to be taken along")
        assert blobs.fetch(digest, tmp_path / "one") == 17
        assert (tmp_path / "one").read_bytes() == b"to be taken along"
        damage(digest, b"to be taken alonG")
        with pytest.raises(TamperFound):
            blobs.fetch(digest, tmp_path / "two")
        with pytest.raises(StoreError, match="missing"):
            blobs.fetch("0" * 64, tmp_path / "two")
        assert not (tmp_path / "two").exists()

    # -- names -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "digest", ["", "abc", "../../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"]
    )
    def test_what_is_no_hash_is_refused(self, blobs: Blobs, digest: str) -> None:
        for ask in (blobs.get, blobs.path, blobs.open, blobs.size, blobs.verify, blobs.delete, blobs.__contains__):
            with pytest.raises(StoreError, match="no blob's hash"):
                ask(digest)

    @pytest.mark.parametrize("name", ["", "..", "a/b", "UPPER", ".hidden", "a" * 65, "a b"])
    def test_a_workspace_must_have_a_plain_name(self, make: Make, name: str) -> None:
        with pytest.raises(UsageError, match="can't name a workspace"):
            make(workspace=name)

    def test_two_workspaces_see_nothing_of_each_other(self, make: Make) -> None:
        one, other = make(workspace="one"), make(workspace="one.more")
        digest = one.put(b"of one")
        assert digest not in other and list(other) == []
        with pytest.raises(StoreError, match="missing"):
            other.get(digest)
        assert other.put(b"of one") == digest
        assert other.delete(digest) and digest in one

    # -- missing and changed -----------------------------------------------------------------------------------------

    def test_a_missing_blob_is_said_to_be_missing(self, blobs: Blobs) -> None:
        digest = "0123456789abcdef" * 4
        for ask in (blobs.get, blobs.path, blobs.open, blobs.size, blobs.verify):
            with pytest.raises(StoreError, match="blob 0123456789ab is missing from") as found:
                ask(digest)
            assert not isinstance(found.value, TamperFound)
        assert digest not in blobs and blobs.delete(digest) is False

    @pytest.mark.parametrize("place", [0, 1000, -1])
    def test_a_changed_byte_is_found(self, blobs: Blobs, damage: Callable[[str, bytes], Any], place: int) -> None:
        data = random.Random(2).randbytes(4096)
        digest = blobs.put(data)
        other = bytearray(data)
        other[place] ^= 1
        damage(digest, bytes(other))
        with pytest.raises(TamperFound, match="changed after it was stored"):
            blobs.get(digest)
        with pytest.raises(TamperFound, match="changed after it was stored"):
            blobs.verify(digest)

    @pytest.mark.parametrize("keep", [0, 100])
    def test_a_cut_blob_is_found_and_written_anew(
        self, blobs: Blobs, damage: Callable[[str, bytes], Any], keep: int
    ) -> None:
        digest = blobs.put(b"x" * 4096)
        damage(digest, b"x" * keep)
        with pytest.raises(TamperFound):
            blobs.verify(digest)
        assert blobs.put(b"x" * 4096) == digest
        assert blobs.verify(digest) == 4096

    # -- listing and deleting ----------------------------------------------------------------------------------------

    def test_a_listing_is_whole_ordered_and_by_page(self, blobs: Blobs) -> None:
        digests = sorted(blobs.put(f"blob {i}".encode()) for i in range(23))
        pages = list(blobs.pages(size=5))
        assert [len(page) for page in pages] == [5, 5, 5, 5, 3]
        assert [entry.digest for page in pages for entry in page] == digests
        assert list(blobs) == digests
        assert {entry.size_bytes for page in pages for entry in page} == {6, 7}
        assert [e.digest for page in blobs.pages(after=digests[9]) for e in page] == digests[10:]
        assert [e.digest for page in blobs.pages(size=100, after="5") for e in page] == [d for d in digests if d > "5"]

    def test_an_empty_place_lists_nothing(self, blobs: Blobs) -> None:
        assert list(blobs) == []
        assert list(blobs.pages()) == []

    def test_what_is_deleted_is_gone(self, blobs: Blobs) -> None:
        kept, gone = blobs.put(b"kept"), blobs.put(b"gone")
        assert blobs.get(gone) == b"gone" and blobs.path(gone).exists()
        assert blobs.delete(gone) is True and blobs.delete(gone) is False
        assert gone not in blobs and list(blobs) == [kept]
        with pytest.raises(StoreError, match="missing"):
            blobs.get(gone)
        assert blobs.put(b"gone") == gone and blobs.get(gone) == b"gone"

    def test_what_was_put_lately_is_not_collected(self, blobs: Blobs) -> None:
        digest = blobs.put(b"about to be named")
        assert blobs.delete(digest, before=clock.machine_now() - timedelta(hours=1)) is False and digest in blobs
        assert blobs.delete(digest, before=clock.machine_now() + timedelta(hours=1)) is True and digest not in blobs

    def test_an_open_file_outlives_its_blob(self, blobs: Blobs) -> None:
        digest = blobs.put(b"still readable")
        with blobs.open(digest) as file:
            blobs.delete(digest)
            assert file.read() == b"still readable"

    # -- many at once, and death -------------------------------------------------------------------------------------

    def test_many_processes_put_the_same_bytes_at_once(self, make: Make, blobs: Blobs) -> None:
        context = multiprocessing.get_context("spawn")
        started = context.Barrier(self.processes)
        others = [context.Process(target=put_all, args=(make, started, n)) for n in range(self.processes)]
        for process in others:
            process.start()
        for process in others:
            process.join(60)
        assert [process.exitcode for process in others] == [0] * self.processes
        assert sorted(blobs) == sorted(
            {hashlib.sha256(d).hexdigest() for n in range(self.processes) for d in shared(n)}
        )
        for digest in blobs:
            blobs.verify(digest)

    def test_a_killed_put_leaves_nothing_with_a_name(self, make: Make, blobs: Blobs, tmp_path: Path) -> None:
        rng = random.Random(3)
        data = rng.randbytes(self.large_bytes)
        kept = blobs.put(b"from before")
        context = multiprocessing.get_context("spawn")
        for number in range(self.killed_puts):
            begun = context.Event()
            process = context.Process(target=put_on_and_on, args=(make, begun, data, number))
            process.start()
            assert begun.wait(60)
            time.sleep(rng.uniform(0, 0.1))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
        assert kept in blobs
        for digest in blobs:
            blobs.verify(digest)  # each that has a name is whole
        assert blobs.put(data) == hashlib.sha256(data).hexdigest()
        blobs.sweep(clock.machine_now() + timedelta(hours=1))
        assert {digest for digest in blobs if blobs.verify(digest)} == set(blobs)


def shared(number: int) -> list[bytes]:
    """Blobs that a process puts: most are also those of the others."""
    return [f"of all {i}".encode() * 1000 for i in range(20)] + [f"own {number}".encode()]


def put_all(make: Make, started: Any, number: int) -> None:
    blobs = make(workspace="default")
    started.wait(60)
    for data in shared(number):
        assert blobs.get(blobs.put(data)) == data


def put_on_and_on(make: Make, begun: Any, data: bytes, number: int) -> None:
    blobs = make(workspace="default")
    begun.set()
    for turn in range(1000):
        blobs.put(data[: len(data) // 2] + f"{number} {turn}".encode() + data[len(data) // 2 :])
