"""From an older format to this one, in two phases, so that old and new code can run together.

*Expand* runs when new code first opens an older store: it only adds tables and nullable columns, so that code of the
format before goes on reading and writing. `meta.expanded` then says the new format, `meta.format` the oldest code that
may still open the store. *Contract* rewrites and removes; it runs only when somebody asks, refuses while older code has
a live heartbeat, and raises `meta.format`: from then on older code is turned away when it opens the store.
"""

import logging
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, exc

from fairway.errors import StoreError, StoreReadOnly, Unfinished
from fairway.store import schema
from fairway.store.base import Store

FOLDER = Path(__file__).parent / "migrations"
VERSION_TABLE = "fairway_migration"  # not alembic's own name: another program may live in the same database
SEEN = timedelta(minutes=1)  # who wrote a heartbeat within this time may be back in a moment

log = logging.getLogger(__name__)


def expand(store: Store, *, folder: Path = FOLDER, target: int = schema.FORMAT) -> None:
    """Add what the format `target` has more; nothing when that was done. A SQLite file is copied beside itself first.

    Holds the writers' place of all workspaces. Raises: StoreError when it can't be done; then nothing has changed.
    """
    try:
        with store.everything() as tx:
            before, expanded = formats(tx)
            if expanded >= target:
                return  # another process was first
            copy = _copy(store, before)
            _run(tx, "expand", folder=folder, at=(before, expanded))
            _put(store, tx, "expanded", target)
    except exc.DBAPIError as error:
        said = f"the store {store.name} can't be brought to format {target}, and is as it was: {error.orig}"
        raise StoreError(said) from error
    except StoreReadOnly as error:
        raise StoreReadOnly(f"{error}; its format {before} has to be brought to {target} by who may write") from error
    kept = f"; as it was before: {copy}" if copy else ""
    log.warning("the store %s was brought to format %d%s", store.name, target, kept)


def contract(store: Store, *, folder: Path = FOLDER, target: int = schema.FORMAT) -> bool:
    """Rewrite and remove what only older code needs, and turn older code away; False when that was done before.

    Raises: Unfinished while older code serves, naming its gateways. Take a backup first: there is no way back.
    """
    with store.everything() as tx:
        before, expanded = formats(tx)
        if before >= target:
            return False
        if expanded < target:
            raise StoreError(f"the store has format {expanded}; open it with code of format {target} first")
        older = older_gateways(store, tx, target)
        if older:
            raise Unfinished(
                f"older code still serves: {', '.join(older)}; restart it with this fairway, then try again"
            )
        _run(tx, "contract", folder=folder, at=(before, expanded))
        _put(store, tx, "format", target)
    return True


def formats(tx: Connection) -> tuple[int, int]:
    """(oldest code that may open the store, newest whose tables are there)."""
    table = schema.meta
    rows = tx.execute(sa.select(table.c.key, table.c.value).where(table.c.workspace == "")).all()
    found = {row.key: int(row.value) for row in rows if row.key in ("format", "expanded")}
    return found["format"], found.get("expanded", found["format"])


def older_gateways(store: Store, tx: Connection, target: int) -> list[str]:
    """Gateways of any workspace, seen within a minute, whose code is older than format `target`."""
    table = schema.gateway
    since = store.database_now(tx) - SEEN
    rows = tx.execute(
        sa.select(table.c.workspace, table.c.gateway, table.c.report).where(table.c.heartbeat_at >= since)
    )
    return sorted(f"{r.gateway} of workspace {r.workspace}" for r in rows if r.report.get("format", 1) < target)


def _run(tx: Connection, branch: str, *, folder: Path, at: tuple[int, int]) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = tx
    if not sa.inspect(tx).has_table(VERSION_TABLE):
        command.stamp(config, _reached(ScriptDirectory.from_config(config), *at))
    command.upgrade(config, f"{branch}@head")


def _reached(script: ScriptDirectory, contracted: int, expanded: int) -> list[str]:
    """The last revision of each chain that a store at these formats has: it was made whole, not by steps."""
    numbers = [revision.revision for revision in script.walk_revisions()]
    done = [
        [n for n in numbers if not n.endswith("c") and int(n) <= expanded],
        [n for n in numbers if n.endswith("c") and int(n.removesuffix("c")) <= contracted],
    ]
    return [max(chain) for chain in done if chain]


def _put(store: Store, tx: Connection, key: str, value: int) -> None:
    store.upsert(tx, schema.meta, {"workspace": "", "key": key, "value": value})


def _copy(store: Store, format: int) -> Path | None:
    """A whole copy of a SQLite file, beside it: `store.db.format-1`. The caller holds the writer's place."""
    database = store.file
    if database is None:
        return None
    target = database.with_name(f"{database.name}.format-{format}")
    temporary = target.with_name(target.name + ".part")
    temporary.unlink(missing_ok=True)
    try:
        source_url = f"{database.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(source_url, uri=True)) as source, closing(sqlite3.connect(temporary)) as copy:
            source.backup(copy)
        temporary.rename(target)
    except (OSError, sqlite3.Error) as exc:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"the store {store.name} is not upgraded: no copy could be made at {target}: {exc}") from exc
    return target
