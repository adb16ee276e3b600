"""Erasing from what models are made of: datasets, and the held-out samples in packages. Models stay as they are."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.data.parts import blobs_of, parts_of
from fairway.keep.erasure_work import Work
from fairway.keep.rewrite import heldout_without, parquet_without
from fairway.rollout import traffic
from fairway.runtime.package import read_manifest
from fairway.store import audit, schema
from fairway.store.base import Row

Json = dict[str, Any]


def datasets(work: Work, now: datetime) -> None:
    for row in _datasets_of(work):
        _rewrite_dataset(work, row, now)


def _datasets_of(work: Work) -> list[Row]:
    """Every dataset that a run of this model took, also one that failed."""
    name, table = work.store.workspace, schema.dataset
    with work.store.read() as tx:
        runs = tx.execute(
            sa.select(schema.run.c.result, schema.run.c.steps).where(
                schema.run.c.workspace == name, schema.run.c.model == work.model
            )
        ).all()
        wanted = set(
            tx.scalars(
                sa.select(schema.version.c.dataset).where(
                    schema.version.c.workspace == name, schema.version.c.model == work.model
                )
            )
        )
        for run in runs:
            wanted.add((run.result or {}).get("dataset"))
            wanted.update(step.get("id") for step in run.steps or () if step.get("name") == "snapshot")
        rows = tx.execute(sa.select(table).where(table.c.workspace == name).order_by(table.c.dataset)).all()
    return [row for row in rows if row.dataset in wanted and work.column in {c[0] for c in row.columns}]


def _rewrite_dataset(work: Work, row: Row, now: datetime) -> None:
    parts: list[str] = []
    gone = rows = 0
    for part in parts_of(row):
        found = parquet_without(work.workspace.blobs.get(part), work.person, (str(work.column),))
        gone, rows = gone + found.gone, rows + found.rows
        if found.data is None or work.dry_run:
            parts.append(part)
        elif found.rows or len(parts_of(row)) == 1:
            parts.append(work.workspace.blobs.put(found.data))
    if not gone:
        return
    work.count("rows of datasets", gone)
    work.count("datasets", 1)
    _trained_on(work, row.dataset)
    if work.dry_run:
        return
    listed = fingerprint.canonical({"parts": parts})
    blob = parts[0] if len(parts) == 1 else work.workspace.blobs.put(listed)
    table = schema.dataset
    with work.store.write() as tx:
        mine = sa.and_(
            table.c.workspace == work.store.workspace, table.c.dataset == row.dataset, table.c.blob == row.blob
        )
        values: Json = {"blob": blob, "rows": rows, "erased_at": now}
        if row.parts:
            values["parts"] = parts
        tx.execute(sa.update(table).where(mine).values(**values))
        work.doomed |= blobs_of(row) - {blob, *parts}
        audit.record(
            work.store, tx, actor=work.actor, action="dataset_erased", subject=row.dataset, erasure=work.name,
            rows=gone,
        )  # fmt: skip
        work.note(tx)


def _trained_on(work: Work, dataset: str) -> None:
    table = schema.version
    with work.store.read() as tx:
        rows = tx.execute(
            sa.select(table.c.model, table.c.version).where(
                table.c.workspace == work.store.workspace, table.c.dataset == dataset
            )
        )
        work.versions.update(f"{row.model}@{row.version}" for row in rows)


def packages(work: Work) -> None:
    """The held-out sample of a package may hold rows of the entity: it is packed again without them.

    Nothing else of the package changes, so the version gives the same answers; its artifact's hash does, which the
    audit log says, and what serves it takes the new one like any other change of the endpoint.
    """
    table = schema.version
    with work.store.read() as tx:
        rows = tx.execute(
            sa.select(table).where(table.c.workspace == work.store.workspace, table.c.model == work.model)
        ).all()
    for row in rows:
        if row.artifact in work.workspace.blobs:
            _repack(work, row)


def _repack(work: Work, row: Row) -> None:
    blobs, name = work.workspace.blobs, "heldout.msgpack"
    manifest = read_manifest(blobs.get(row.artifact))
    if name not in manifest.files:
        return
    sample, gone = heldout_without(blobs.get(manifest.files[name]), work.person, str(work.column))
    if not gone:
        return
    work.count("held-out rows in packages", gone)
    if work.dry_run:
        return
    files = {**manifest.files, name: blobs.put(sample)}
    artifact = blobs.put(replace(manifest, files=files).to_bytes())
    table, ends, steps = schema.version, schema.endpoint, schema.step
    thing = f"{row.model}@{row.version}"
    with work.store.write() as tx:
        mine = sa.and_(
            table.c.workspace == work.store.workspace, table.c.model == row.model, table.c.version == row.version
        )
        tx.execute(sa.update(table).where(mine).values(artifact=artifact))
        audit.record(
            work.store, tx, actor=work.actor, action="version_erased", subject=thing, erasure=work.name,
            artifact=artifact, was=row.artifact, rows=gone,
        )  # fmt: skip
        runs = schema.run  # so that a run can still be made again from what it packed
        made = sa.and_(runs.c.workspace == work.store.workspace, runs.c.model == row.model)
        for run in tx.execute(sa.select(runs.c.run, runs.c.result).where(made)).all():
            if (run.result or {}).get("artifact") == row.artifact:
                result = {**run.result, "artifact": artifact}
                tx.execute(sa.update(runs).where(made, runs.c.run == run.run).values(result=result))
        old = sa.cast(steps.c.result, sa.Text).contains(row.artifact)
        tx.execute(sa.delete(steps).where(steps.c.workspace == work.store.workspace, old))
        for end in tx.execute(
            sa.select(ends).where(ends.c.workspace == work.store.workspace, ends.c.model == row.model)
        ).all():
            if row.version in {end.champion, end.previous, end.challenger, *end.shadows}:
                traffic.change(
                    work.store, tx, end.endpoint, actor=work.actor, action="endpoint.repacked", now=clock.now(),
                    about={"erasure": work.name, "version": row.version},
                )  # fmt: skip
        work.doomed |= {row.artifact, manifest.files[name]}
        work.note(tx)
    (work.workspace.folder / "cache" / "artifacts" / row.artifact / name).unlink(missing_ok=True)
