"""The spool: committed before answered, sealed once, nothing lost at any death."""

import asyncio
import resource
from pathlib import Path

import pytest

from fairway.data import segment
from fairway.data.segment import Columns, LabelRow, Labels
from fairway.errors import RequestError, StoreError
from fairway.serve.spool import Spool, seal_orphans, sealed_segments

COLUMNS = Columns("", "", [])


def label(number: int) -> Labels:
    return Labels(1, [LabelRow(f"p-{number}", "y", "e", 1, 1)])


def names(spool: Path) -> list[str]:
    return [
        row.prediction
        for path in sealed_segments(spool)
        for record in segment.read(path).records
        if isinstance(record, Labels)
        for row in record.rows
    ]


def test_sealed_segments_hold_what_was_committed_in_order(tmp_path: Path) -> None:
    async def write() -> None:
        spool = Spool(tmp_path, "g1")
        await asyncio.gather(*(spool.commit(label(i), COLUMNS) for i in range(5)))
        await spool.seal()
        await spool.seal()  # nothing new: no further file
        assert len(sealed_segments(tmp_path)) == 1
        await spool.commit(label(5), COLUMNS)
        await spool.close()

    asyncio.run(write())
    assert names(tmp_path) == [f"p-{i}" for i in range(6)]
    assert len(sealed_segments(tmp_path)) == 2


def test_a_segment_is_sealed_when_it_grows_too_large(tmp_path: Path) -> None:
    async def write() -> None:
        spool = Spool(tmp_path, "g1", max_bytes=200)
        for i in range(40):
            await spool.commit(label(i), COLUMNS)
        await spool.close()

    asyncio.run(write())
    assert len(sealed_segments(tmp_path)) > 1
    assert names(tmp_path) == [f"p-{i}" for i in range(40)]
    for path in sealed_segments(tmp_path):
        assert isinstance(segment.read(path).records[0], Columns)  # every segment can be read alone


def test_one_living_owner_and_orphans_are_sealed(tmp_path: Path) -> None:
    async def write() -> None:
        first = Spool(tmp_path, "g1")
        await first.commit(label(1), COLUMNS)
        with pytest.raises(StoreError, match="another process"):
            Spool(tmp_path, "g1")
        assert seal_orphans(tmp_path) == 0  # its owner lives

    asyncio.run(write())  # the spool goes away without close, as after a crash


def test_what_a_dead_gateway_left_is_sealed_by_its_next_start(tmp_path: Path) -> None:
    # A copy of the files of a living gateway is what kill -9 leaves behind.
    source, copy = tmp_path / "a", tmp_path / "b"

    async def write() -> None:
        spool = Spool(source, "g1")
        for i in range(3):
            await spool.commit(label(i), COLUMNS)
        folder = copy / segment.OPEN / "g1"
        folder.mkdir(parents=True)
        for path in (source / segment.OPEN / "g1").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "g1-never-begun.seg").touch()
        await spool.close()

    asyncio.run(write())
    assert seal_orphans(copy) == 1
    assert names(copy) == ["p-0", "p-1", "p-2"]
    assert list((copy / segment.OPEN / "g1").iterdir()) == [copy / segment.OPEN / "g1" / "lock"]


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def write() -> None:
        spool = Spool(tmp_path, "g1")
        await spool.commit(label(0), COLUMNS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(RequestError) as refused:
                await spool.commit(Labels(1, [LabelRow("p-x" * 200_000, "y", "e", 1, 1)]), COLUMNS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (refused.value.status, refused.value.code) == (503, "log_full")
        await spool.commit(label(1), COLUMNS)
        await spool.close()

    asyncio.run(write())
    assert names(tmp_path) == ["p-0", "p-1"]


def test_a_damaged_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.seg"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"x\.seg can't be read"):
        segment.read(path)
