"""Blobs in a folder: the whole suite, and what only a disk can do wrong."""

import errno
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairway import clock
from fairway.errors import StoreError, StoreReadOnly, StoreUnavailable
from fairway.store.blobs import LocalBlobs, trouble
from fairway.testing.blob_suite import BlobSuite


class TestLocal(BlobSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[..., LocalBlobs]:
        return functools.partial(LocalBlobs, tmp_path / "blobs")

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Callable[[str, bytes], Any]:
        return lambda digest, data: (tmp_path / "blobs" / "default" / digest[:2] / digest).write_bytes(data)


FILL = """
import resource, signal, sys
from pathlib import Path
from fairway.errors import StoreUnavailable
from fairway.store.blobs import LocalBlobs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
blobs = LocalBlobs(Path(sys.argv[1]))
kept = blobs.put(b"small")
for put in (lambda: blobs.put(b"x" * 200_000), lambda: blobs.put_file(Path(sys.argv[2]))):
    try:
        put()
    except StoreUnavailable as error:
        print(error)
assert list(blobs) == [kept] and blobs.get(kept) == b"small"
"""


def test_a_put_past_the_quota_leaves_nothing(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"y" * 200_000)
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "blobs"), str(large)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("full; nothing was kept, make space and try again" in line for line in lines)
    assert [p.name for p in (tmp_path / "blobs" / "default").iterdir() if p.name.startswith(".")] == []
    blobs = LocalBlobs(tmp_path / "blobs")
    assert blobs.get(blobs.put_file(large)) == b"y" * 200_000


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, StoreUnavailable, "full"), (errno.EDQUOT, StoreUnavailable, "full"),
        (errno.EROFS, StoreReadOnly, "can be read, and not written"), (errno.EIO, StoreUnavailable, "nothing was kept"),
    ],
)  # fmt: skip
def test_what_a_disk_says_becomes_a_sentence(number: int, kind: type[StoreError], text: str) -> None:
    error = trouble(OSError(number, os.strerror(number)), "blob abc can't be written to /x")
    assert type(error) is kind and text in str(error) and str(error).startswith("blob abc can't be written to /x: ")


def test_leftovers_of_killed_puts_are_swept_when_they_are_old(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"whole")
    left = tmp_path / "default" / ".put-0123"
    left.write_bytes(b"half")
    assert list(blobs) == [digest]
    assert blobs.sweep(clock.machine_now() - timedelta(hours=1)) == 0 and left.exists()
    assert blobs.sweep(clock.machine_now() + timedelta(hours=1)) == 1 and not left.exists()
    assert list(blobs) == [digest]
