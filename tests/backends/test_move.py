"""`fairway admin move`: all of a workspace to Postgres and a bucket and back, killed anywhere, and what it refuses."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from filled import fill, sums

from fairway.errors import StoreMoved, TamperFound, UsageError
from fairway.store import audit, closed, move, schema, transfer
from fairway.store.base import Store
from fairway.store.gateways import LOCK, try_lock
from fairway.store.move import HERE, Mover
from fairway.store.workspace import Workspace, embedded_store_url


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "ws")
    fill(made)
    return made


def at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, **settings: str | None) -> Workspace:
    """The same workspace, as a process with these settings sees it."""
    for name in ("FAIRWAY_STORE", "FAIRWAY_BLOBS"):
        value = settings.get(name)
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    return Workspace(workspace.root, workspace.name)


def actions(workspace: Workspace) -> list[str]:
    return [row.action for row in audit.entries(workspace.store) if row.action != "x"]


def writable(store: Store) -> None:
    with store.write() as tx:
        store.add_to_counter(tx, "written")


def test_everything_goes_to_servers_and_back(
    workspace: Workspace, postgres_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, digests = sums(workspace), list(workspace.blobs)
    plan = Mover(workspace, to=postgres_url, blobs=s3_url).plan()
    assert (plan.state, plan.blobs) == ("fresh", len(digests)) and plan.tables["prediction"] == 12
    assert actions(workspace) == [] and closed_mark(workspace) is None
    said: list[str] = []
    mover = Mover(workspace, to=postgres_url, blobs=s3_url, say=said.append)
    done = mover.run(actor="kim")
    assert done.blobs == len(digests) and done.rows > 12 * 20 and said
    assert mover.settings() == {"FAIRWAY_STORE": postgres_url, "FAIRWAY_BLOBS": s3_url}
    with pytest.raises(StoreMoved, match=rf"moved from /.*store.db to {postgres_url} .*set FAIRWAY_BLOBS={s3_url}"):
        writable(workspace.store)
    assert sums(workspace) == before, "the old place keeps its copy"

    there = at(workspace, monkeypatch, **mover.settings())
    assert sums(there) == before and list(there.blobs) == digests
    assert all(there.blobs.verify(digest) is not None for digest in digests)
    assert actions(there) == ["move_started", "moved"] and audit.verify(there.store) is None
    writable(there.store)
    there.blobs.put(b"new there")

    half = at(workspace, monkeypatch, FAIRWAY_STORE=postgres_url)
    with pytest.raises(UsageError, match=f"set FAIRWAY_BLOBS={s3_url}"):
        _ = half.blobs

    there = at(workspace, monkeypatch, **mover.settings())
    changed = sums(there)
    back = Mover(there, to=HERE, blobs=HERE)
    assert back.run(actor="kim").blobs == len(digests) + 1
    assert back.settings() == {"FAIRWAY_STORE": None, "FAIRWAY_BLOBS": None}
    with pytest.raises(StoreMoved, match="unset FAIRWAY_STORE"):
        writable(there.store)
    there.store.close()
    here = at(workspace, monkeypatch)
    assert sums(here) == changed and b"new there" in {here.blobs.get(d) for d in here.blobs}
    assert actions(here) == ["move_started", "moved"] * 2 and audit.verify(here.store) is None
    writable(here.store)

    again = Mover(here, to=postgres_url, blobs=s3_url)  # what it left there is its own, and is replaced
    again.run(actor="kim")
    there = at(workspace, monkeypatch, **again.settings())
    assert actions(there) == ["move_started", "moved"] * 3
    there.store.close()


def closed_mark(workspace: Workspace) -> object:
    with workspace.store.read() as tx:
        return closed.mark(tx, workspace.name)


def test_null_and_json_null_stay_apart(workspace: Workspace, postgres_url: str) -> None:
    with workspace.store.read() as tx:
        run = schema.run.c.result
        unset = tx.scalar(sa.select(sa.func.count()).where(run.is_(sa.null())))
    Mover(workspace, to=postgres_url, blobs=None).run(actor="kim")
    with Store(postgres_url) as store, store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).where(run.is_(sa.null()))) == unset > 0


class Killed(BaseException):
    """A death, seen from within."""


@contextmanager
def dying(store_class: type[Store], number: int, *, after: bool) -> Iterator[list[int]]:
    """The `number`-th write transaction of a move does not commit, or (after) is the last thing that happens."""
    count, real = [0], store_class.write

    @contextmanager
    def write(self: Store, *, closed_too: bool = False) -> Iterator[sa.Connection]:
        count[0] += 1
        mine = count[0]
        with real(self, closed_too=closed_too) as tx:
            yield tx
            if mine == number and not after:
                raise Killed
        if mine == number and after:
            raise Killed

    store_class.write = write  # type: ignore[method-assign]
    try:
        yield count
    finally:
        store_class.write = real  # type: ignore[method-assign]


@pytest.mark.parametrize("after", [False, True])
def test_a_move_that_dies_at_any_write_is_repeated(tmp_path: Path, after: bool) -> None:
    """Every write, one after the other: each attempt dies one write later than the one before."""
    workspace = Workspace.create(tmp_path / "ws")
    fill(workspace, rows=3, blobs=3)
    before, url = sums(workspace), f"sqlite:///{tmp_path / 'other.db'}"
    blobs = str(tmp_path / "elsewhere")
    deaths = 0
    while True:
        with dying(Store, deaths // 3 + 1, after=after):
            try:
                Mover(workspace, to=url, blobs=blobs).run(actor="kim")
                break
            except Killed:
                deaths += 1
        if closed_mark(workspace) is not None:
            with pytest.raises(StoreMoved):
                writable(workspace.store)
    assert deaths > 20
    with Store(url) as there:
        with there.read() as tx:
            found = {t.name: transfer.sum_of(tx, t, "default") for t in transfer.tables() if t.name in before}
        assert found == before
        assert [r.action for r in audit.entries(there) if r.action != "x"] == ["move_started", "moved"]
        writable(there)
    with pytest.raises(StoreMoved, match="was moved"):
        writable(workspace.store)


MOVE = """
import os, signal, sys, threading
from pathlib import Path
from fairway.store.move import Mover
from fairway.store.workspace import Workspace
mover = Mover(Workspace(Path(sys.argv[1])), to=sys.argv[2], blobs=sys.argv[3])
threading.Timer(float(sys.argv[4]), os.kill, (os.getpid(), signal.SIGKILL)).start()
mover.run(actor="kim")
os._exit(0)
"""


def test_kill_9_again_and_again_on_real_servers(
    workspace: Workspace, postgres_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, deaths = sums(workspace), 0
    while True:
        command = [sys.executable, "-c", MOVE, str(workspace.root), postgres_url, s3_url, str(0.02 * 1.7**deaths)]
        done = subprocess.run(command, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        deaths += 1
    assert deaths >= 2
    there = at(workspace, monkeypatch, FAIRWAY_STORE=postgres_url, FAIRWAY_BLOBS=s3_url)
    assert sums(there) == before and list(there.blobs) == list(at(workspace, monkeypatch).blobs)
    there.store.close()


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_served_workspace_stays(workspace: Workspace, tmp_path: Path) -> None:
    lock = try_lock(workspace.folder / LOCK)
    assert lock is not None
    try:
        with pytest.raises(UsageError, match="`fairway serve` runs on"):
            Mover(workspace, to=f"sqlite:///{tmp_path / 'other.db'}", blobs=None).run(actor="kim")
    finally:
        os.close(lock)
    with workspace.store.write() as tx:
        now = workspace.store.database_now(tx)
        tx.execute(sa.update(schema.gateway).values(heartbeat_at=now, supervisor="far-away-7"))
    with pytest.raises(UsageError, match="on far-away: stop it first"):
        Mover(workspace, to=f"sqlite:///{tmp_path / 'other.db'}", blobs=None).run(actor="kim")
    writable(workspace.store)


def test_another_workspace_of_that_name_is_not_overwritten(workspace: Workspace, postgres_url: str) -> None:
    with Store(postgres_url) as other:
        writable(other)
    for ask in (lambda m: m.plan(), lambda m: m.run(actor="kim")):
        with pytest.raises(UsageError, match=r"holds another workspace named 'default' \(counter"):
            ask(Mover(workspace, to=postgres_url, blobs=None))
    writable(workspace.store)
    with Store(postgres_url, workspace="another") as other:
        writable(other)


def test_other_workspaces_of_the_destination_stay(workspace: Workspace, postgres_url: str) -> None:
    with Store(postgres_url, workspace="another") as other:
        writable(other)
    Mover(workspace, to=postgres_url, blobs=None).run(actor="kim")
    with Store(postgres_url, workspace="another") as other, other.read() as tx:
        assert transfer.count(tx, schema.counter, "another") == 1
        assert transfer.count(tx, schema.audit, "another") == 0


def test_blobs_of_another_workspace_are_not_mixed_in(workspace: Workspace, postgres_url: str, tmp_path: Path) -> None:
    place = str(tmp_path / "shared")
    workspace.blobs_at(place).put(b"of someone else")
    with pytest.raises(UsageError, match="holds blobs of another workspace"):
        Mover(workspace, to=postgres_url, blobs=place).run(actor="kim")
    writable(workspace.store)


def test_the_same_place_is_no_destination(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="already"):
        Mover(workspace, to=embedded_store_url(workspace.root), blobs=None)


def test_one_move_at_a_time(workspace: Workspace, tmp_path: Path) -> None:
    one, other = (f"sqlite:///{tmp_path / name}.db" for name in ("one", "other"))
    with dying(Store, 3, after=True), pytest.raises(Killed):
        Mover(workspace, to=one, blobs=None).run(actor="kim")
    with pytest.raises(UsageError, match=r"a move to /.*one.db is under way"):
        Mover(workspace, to=other, blobs=None).run(actor="kim")
    with Store(one) as there, pytest.raises(StoreMoved, match="is not finished"):
        writable(there)


# -- damage, and giving up -------------------------------------------------------------------------------------------


def test_a_damaged_blob_ends_the_move_which_can_be_given_up(
    workspace: Workspace, postgres_url: str, tmp_path: Path
) -> None:
    digest = next(e.digest for page in workspace.blobs.pages() for e in page if e.size_bytes > 10)
    whole = workspace.blobs.get(digest)
    workspace.blobs.path(digest).write_bytes(b"?" + whole[1:])
    place = str(tmp_path / "shared")
    with pytest.raises(TamperFound, match=rf"blob {digest[:12]}.*was changed.*--cancel"):
        Mover(workspace, to=postgres_url, blobs=place).run(actor="kim")
    with pytest.raises(StoreMoved, match="is being moved"):
        writable(workspace.store)
    assert move.cancel(workspace, to=postgres_url, actor="kim")["cleared"] is True
    writable(workspace.store)
    with pytest.raises(UsageError, match=r"no move from .* is under way"):
        move.cancel(workspace, to=None, actor="kim")
    workspace.blobs.path(digest).write_bytes(whole)
    Mover(workspace, to=postgres_url, blobs=place).run(actor="kim")
    assert [r.action for r in audit.entries(workspace.store) if r.action != "x"] == [
        "move_started", "move_cancelled", "move_started",
    ]  # fmt: skip


def test_a_move_given_up_without_its_destination_can_go_there_later(workspace: Workspace, postgres_url: str) -> None:
    with dying(Store, 8, after=True), pytest.raises(Killed):
        Mover(workspace, to=postgres_url, blobs=None).run(actor="kim")
    assert move.cancel(workspace, to=None, actor="kim")["cleared"] is False
    writable(workspace.store)
    Mover(workspace, to=postgres_url, blobs=None).run(actor="kim")
    with Store(postgres_url) as there, there.read() as tx:
        assert tx.scalar(sa.select(schema.counter.c.value).where(schema.counter.c.name == "written")) == 1


def test_a_move_that_is_done_can_not_be_given_up(workspace: Workspace, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with dying(Store, 10_000, after=True) as count:
        Mover(workspace, to=url, blobs=None).run(actor="kim")
    with pytest.raises(StoreMoved, match="was moved"):
        move.cancel(workspace, to=url, actor="kim")
    # Dead between the opening of the new store and the mark at the old one: only the new one knows.
    with workspace.store.write(closed_too=True) as tx:
        mark = closed.mark(tx, "default") or {}
        row = {"workspace": "default", "key": closed.KEY, "value": {**mark, "state": "moving"}}
        workspace.store.upsert(tx, schema.meta, row)
    assert count[0] > 30
    with pytest.raises(UsageError, match="say --to"):
        move.cancel(workspace, to=None, actor="kim")
    with pytest.raises(UsageError, match="the move is done"):
        move.cancel(workspace, to=url, actor="kim")
    done = Mover(workspace, to=url, blobs=None).run(actor="kim")
    assert done.state == "done" and done.rows > 200
    with pytest.raises(StoreMoved, match="was moved"):
        writable(workspace.store)
