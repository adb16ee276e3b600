"""Erasing from what quotes rows: evidence of checks, reviews and alarms, reports and logs of runs, cached results."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway.keep.erasure_work import Work, overwrite
from fairway.registry import versions
from fairway.store import audit, schema
from fairway.store.base import Row

Json = dict[str, Any]

# Where evidence may quote a row: text and JSON of one model's records.
_QUOTES: tuple[tuple[sa.Table, tuple[str, ...]], ...] = (
    (schema.version, ("checks", "metrics")),
    (schema.run, ("result", "error", "steps")),
    (schema.review, ("question", "evidence", "why")),
    (schema.alarm, ("evidence", "action")),
    (schema.rollout, ("decision", "state")),
)


def quotes(work: Work) -> None:
    """Evidence of checks, reviews and alarms may quote a row."""
    for table, names in _QUOTES:
        with work.store.read() as tx:
            rows = tx.execute(
                sa.select(table).where(table.c.workspace == work.store.workspace, table.c.model == work.model)
            ).all()
        for row in rows:
            changed = {
                name: new
                for name in names
                if (old := row._mapping[name]) is not None and (new := work.person.scrub(old)) != old
            }
            if changed:
                _requote(work, table, row, changed)
    _steps(work)


def _requote(work: Work, table: sa.Table, row: Row, changed: Json) -> None:
    work.count(f"{table.name}s that quote it", 1)
    if work.dry_run:
        return
    keys = [c.name for c in table.primary_key]
    with work.store.write() as tx:
        overwrite(tx)
        mine = sa.and_(*(table.c[key] == row._mapping[key] for key in keys))
        tx.execute(sa.update(table).where(mine).values(**changed))
        if table is schema.version:
            again = tx.execute(sa.select(table).where(mine)).one()
            audit.record(
                work.store, tx, actor=work.actor, action="version_erased", subject=f"{row.model}@{row.version}",
                erasure=work.name, content=versions.content_of(again), changed=sorted(changed),
            )  # fmt: skip
        work.note(tx)


def _steps(work: Work) -> None:
    """Results of steps are a cache: those that quote the entity are computed again when they are asked for."""
    table = schema.step
    if not work.person.in_text:
        return
    with work.store.read() as tx:
        rows = tx.execute(
            sa.select(table.c.key, table.c.result).where(
                table.c.workspace == work.store.workspace,
                sa.cast(table.c.result, sa.Text).contains(work.person.value, autoescape=True),
            )
        ).all()
    keys = [row.key for row in rows if work.person.is_in(json.dumps(row.result, ensure_ascii=False))]
    work.count("results of steps", len(keys))
    if keys and not work.dry_run:
        with work.store.write() as tx:
            overwrite(tx)
            tx.execute(sa.delete(table).where(table.c.workspace == work.store.workspace, table.c.key.in_(keys)))
            work.note(tx)


def folders(work: Work) -> None:
    """Reports and logs of runs, and the cache of steps, which holds the rows themselves."""
    with work.store.read() as tx:
        runs = tx.scalars(
            sa.select(schema.run.c.run).where(
                schema.run.c.workspace == work.store.workspace, schema.run.c.model == work.model
            )
        ).all()
    for run in runs:
        for path in _text_files(work.workspace.folder / "runs" / run):
            data = path.read_bytes()
            without = work.person.scrub_bytes(data)
            if without != data:
                work.count("files of runs", 1)
                if not work.dry_run:
                    temporary = path.with_name(f".{path.name}.part")
                    temporary.write_bytes(without)
                    temporary.rename(path)
    cache = work.workspace.folder / "cache" / "steps"
    for folder in sorted(cache.glob("[0-9a-f]*")) if not work.dry_run else ():
        shutil.rmtree(folder, ignore_errors=True)


def _text_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.suffix in (".html", ".md", ".txt", ".json", ".log"):
                yield path
