"""Versions: registered whole, in one transaction with their number, their run's end and their audit entry."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

import fairway
from fairway import clock, fingerprint
from fairway.errors import ModelNotFound, UsageError, VersionNotFound
from fairway.store import audit, schema
from fairway.store.base import Row, Store

FORMAT = 1

Verdict = Literal["pass", "fail", "ask"]


@dataclass(frozen=True)
class Thing:
    """What a person named: a model, one of its versions, or anything with an id of its own ("run-7f3a")."""

    kind: Literal["model", "version", "id"]
    name: str
    version: int | None = None


def parse_thing(text: str) -> Thing:
    """ "churn@3", "churn", "run-7f3a", "rollout-9", "p-01JD…". Raises: UsageError for what can be none of them.

    >>> parse_thing("churn@3")
    Thing(kind='version', name='churn', version=3)
    """
    if re.fullmatch(r"(run|data|contract|rollout|alarm|review|job|p)-[0-9A-Za-z]+", text):
        return Thing("id", text)
    match = re.fullmatch(r"([a-z0-9][a-z0-9._-]{0,63})(?:@(\d{1,9}))?", text)
    if match is None:
        raise UsageError(f"{text!r} names nothing; write a model (churn), a version (churn@3) or an id (run-7f3a)")
    if match[2] is None:
        return Thing("model", match[1])
    return Thing("version", match[1], int(match[2]))


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """Everything that is known of a version when it is registered."""

    model: str
    project_path: str
    run: str
    artifact: str
    dataset: str | None
    contract: str
    verdict: Verdict
    metrics: dict[str, Any]
    checks: list[dict[str, Any]]
    settings: dict[str, Any]
    trained_until: datetime | None
    author: str


def register(store: Store, tx: Connection, new: NewVersion) -> int:
    """Write the version under its model's next number, with the model's row and an audit entry; returns the number.

    In the caller's transaction, so that a run's end and its version appear together or not at all.
    """
    now = clock.now()
    number = store.next_number(tx, f"version/{new.model}")
    thing = f"{new.model}@{number}"  # what repeats a check is known only now
    checks = [check | {"repeat": check.get("repeat", "").replace(new.run, thing)} for check in new.checks]
    tx.execute(
        sa.insert(schema.version).values(
            workspace=store.workspace, model=new.model, version=number, run=new.run, artifact=new.artifact,
            dataset=new.dataset, contract=new.contract, verdict=new.verdict, metrics=new.metrics, checks=checks,
            settings=new.settings, trained_until=new.trained_until, author=new.author, created_at=now,
            fairway=fairway.__version__, format=FORMAT,
        )
    )  # fmt: skip
    remember_model(store, tx, new.model, new.project_path, new.settings, actor=new.author)
    audit.record(
        store, tx, actor=new.author, action="version_registered", subject=thing, run=new.run,
        artifact=new.artifact, dataset=new.dataset, verdict=new.verdict,
        content=_content(new.metrics, checks, new.settings),
    )  # fmt: skip
    return number


def content_of(row: Row) -> str:
    """Hash of what a version's row says of it: the audit log keeps it, so that a changed metric or check is found."""
    return _content(row.metrics, row.checks, row.settings)


def _content(metrics: Any, checks: Any, settings: Any) -> str:
    stored = json.loads(json.dumps([metrics, checks, settings]))  # as it comes back: keys are text
    return fingerprint.of_bytes(json.dumps(stored, sort_keys=True).encode())


def remember_model(
    store: Store, tx: Connection, model: str, project_path: str, settings: dict[str, Any], *, actor: str = "fairway"
) -> None:
    """Where the model's project is now, and its settings of the last run; made when it is new. A change of the settings
    of a known model is an audit entry."""
    table = schema.model
    where = sa.and_(table.c.workspace == store.workspace, table.c.model == model)
    before: dict[str, Any] | None = tx.scalar(sa.select(table.c.settings).where(where))
    values = {"project_path": project_path, "settings": settings}
    if before is None:
        tx.execute(sa.insert(table).values(workspace=store.workspace, model=model, created_at=clock.now(), **values))
        return
    tx.execute(sa.update(table).where(where).values(values))
    changed = {
        key: {"from": before.get(key), "to": settings.get(key)}
        for key in sorted({*before, *settings})
        if before.get(key) != settings.get(key)
    }
    if changed:
        audit.record(store, tx, actor=actor, action="settings_changed", subject=model, changed=changed)


def get(store: Store, model: str, version: int | None = None) -> Row:
    """One version, by default the newest. Raises: ModelNotFound, VersionNotFound."""
    table = schema.version
    with store.read() as tx:
        rows = tx.execute(
            sa.select(table)
            .where(table.c.workspace == store.workspace, table.c.model == model)
            .order_by(table.c.version)
        ).all()
        known = tx.scalars(
            sa.select(schema.model.c.model)
            .where(schema.model.c.workspace == store.workspace)
            .order_by(schema.model.c.model)
        ).all()
    if not rows:
        if version is not None and model in known:
            raise VersionNotFound(model, version)
        raise ModelNotFound(model, known=list(known))
    found = rows[-1] if version is None else next((row for row in rows if row.version == version), None)
    if found is None:
        raise VersionNotFound(model, version or 0, known=[row.version for row in rows])
    return found


def same(store: Store, *, model: str, artifact: str, dataset: str) -> Row | None:
    """The newest version with exactly this package, made from this dataset."""
    table = schema.version
    with store.read() as tx:
        return tx.execute(
            sa.select(table)
            .where(
                table.c.workspace == store.workspace, table.c.model == model, table.c.artifact == artifact,
                table.c.dataset == dataset,
            )
            .order_by(table.c.version.desc())
            .limit(1)
        ).first()  # fmt: skip


def newest(store: Store, model: str) -> Row | None:
    """The version with the highest number; None while there is none."""
    table = schema.version
    with store.read() as tx:
        return tx.execute(
            sa.select(table)
            .where(table.c.workspace == store.workspace, table.c.model == model)
            .order_by(table.c.version.desc())
            .limit(1)
        ).first()


def champion(store: Store, model: str) -> Row | None:
    """The version that serves the model's own endpoint now; None without one."""
    endpoint, table = schema.endpoint, schema.version
    with store.read() as tx:
        return tx.execute(
            sa.select(table)
            .join(
                endpoint,
                sa.and_(
                    endpoint.c.workspace == table.c.workspace,
                    endpoint.c.model == table.c.model,
                    endpoint.c.champion == table.c.version,
                ),
            )
            .where(table.c.workspace == store.workspace, endpoint.c.endpoint == model, table.c.model == model)
        ).first()
