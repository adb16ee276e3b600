"""What keeps a blob: every text column of every table that may name one, and the files of the packages among them.

A column is looked at unless it stands in `NOT_BLOBS` with the reason, so that a new one can't be forgotten: at worst it
keeps too much.
"""

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.errors import FairwayError, Refused
from fairway.runtime.package import read_manifest
from fairway.store import schema
from fairway.store.base import Store
from fairway.store.blobs import Blobs
from fairway.store.workspace import Workspace

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ARTIFACT = re.compile(r'"artifact":\s*"([0-9a-f]{64})"')
_NUMBERS = (sa.Integer, sa.Numeric, sa.Float, sa.Boolean)
_PIECE = 1_000

# Text that is never a blob's name though it may hold a hash, or of which there is too much to look at for nothing.
NOT_BLOBS: dict[str, tuple[str, ...]] = {
    "audit": ("actor", "action", "subject", "detail", "previous", "hash"),  # tells what was; keeps nothing alive
    "token": ("name", "digest", "roles"),  # hashes of tokens
    "prediction": (  # one row per prediction; `body` is the hash of a request, the rest its answers
        "prediction", "endpoint", "model", "unit", "rollout", "contract", "flags", "body", "answers", "segment",
        "label",
    ),
    "label": ("prediction", "name", "event", "value"),  # `event` may be the hash of a feedback row
    "rollout_unit": ("rollout", "metric", "unit", "arm"),
    "stratum": ("rollout", "metric", "arm"),
    "look": ("rollout", "sums", "decision"),  # figures
    "erasure": ("erasure", "model", "entity", "state", "found", "asked_by", "why"),  # names what it is about to delete
    "gateway": ("gateway", "supervisor", "prepared", "active", "report"),
    "step": ("key", "name"),  # the fingerprint of a step's inputs
}  # fmt: skip


def text_columns(table: sa.Table) -> list[sa.Column[object]]:
    """The columns of a table that could hold a blob's name: all but numbers and times."""
    return [c for c in table.columns if not isinstance(_stored(c.type), _NUMBERS) and c.name != "workspace"]


def _stored(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """What a type of ours is kept as."""
    return kind.impl_instance if isinstance(kind, sa.TypeDecorator) else kind


def looked_at(table: sa.Table) -> list[sa.Column[object]]:
    """The columns that `named` reads."""
    return [c for c in text_columns(table) if c.name not in NOT_BLOBS.get(table.name, ())]


def pins(
    workspace: Workspace,
    tx: Connection,
    *,
    runs_since: datetime | None = None,
    without_datasets: Collection[str] = (),
    without_packages: Collection[str] = (),
) -> set[str]:
    """Every blob that something in the store needs, files of packages included.

    runs_since: results of runs that made no version, and of steps, count only when they are younger. without_datasets:
    these rows are about to be forgotten. without_packages: that were replaced: a run that made one keeps it no more.
    Raises: Refused when a version's package can't be read: then nobody can tell what it needs.
    """
    store, blobs = workspace.store, workspace.blobs
    found: set[str] = set()
    packages: set[str] = set()
    for text in _texts(store, tx, runs_since, without_datasets):
        found.update(_DIGEST.findall(text))
        packages.update(_ARTIFACT.findall(text))
    found.difference_update(without_packages)
    packages.difference_update(without_packages)
    for row in tx.execute(
        sa.select(schema.version.c.model, schema.version.c.version, schema.version.c.artifact).where(
            schema.version.c.workspace == store.workspace
        )
    ):
        packages.discard(row.artifact)
        found |= _files(blobs, row.artifact, whose=f"{row.model}@{row.version}")
    for artifact in packages:  # of runs and steps: one that is gone is made again when it is asked for
        if artifact in blobs:
            found |= _files(blobs, artifact, whose=f"package {artifact[:12]}")
    return found


def _texts(
    store: Store, tx: Connection, runs_since: datetime | None, without_datasets: Collection[str]
) -> Iterator[str]:
    for table in schema.metadata.sorted_tables:
        columns = looked_at(table)
        if not columns:
            continue
        where = [table.c.workspace == store.workspace]
        if without_datasets and table is schema.dataset:
            where.append(table.c.dataset.notin_(sorted(without_datasets)))
        if runs_since is not None and table is schema.step:
            where.append(table.c.created_at >= runs_since)
        if runs_since is not None and table is schema.run:
            made = sa.select(schema.version.c.run).where(schema.version.c.workspace == store.workspace)
            where.append(sa.or_(table.c.started_at >= runs_since, table.c.run.in_(made)))
        query = sa.select(*(sa.cast(c, sa.Text) for c in columns)).where(*where)
        with tx.execute(query.execution_options(yield_per=_PIECE)) as rows:
            for row in rows:
                yield from (value for value in row if value is not None and len(value) >= 64)


def _files(blobs: Blobs, artifact: str, *, whose: str) -> set[str]:
    try:
        manifest = read_manifest(blobs.get(artifact))
    except FairwayError as exc:
        raise Refused(
            f"the package of {whose} can't be read, so what it needs is unknown and nothing is deleted: {exc}. "
            "See: fairway admin doctor"
        ) from exc
    return {artifact, *manifest.files.values()}
