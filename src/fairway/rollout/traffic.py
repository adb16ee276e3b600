"""The desired state of an endpoint: one row, changed only here. Gateways read it; this module never speaks to one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.errors import ModelNotFound
from fairway.store import audit, schema
from fairway.store.base import Row, Store

STAGING = ".staging"
LIVE, NO_CHAMPION, RETIRED = "live", "no_champion", "retired"


def endpoint(store: Store, tx: Connection, name: str) -> Row | None:
    table = schema.endpoint
    return tx.execute(sa.select(table).where(table.c.workspace == store.workspace, table.c.endpoint == name)).first()


def need_endpoint(store: Store, tx: Connection, model: str) -> Row:
    """The model's first endpoint, which has its name. Raises: ModelNotFound."""
    row = endpoint(store, tx, model)
    if row is None:
        table = schema.endpoint
        query = sa.select(table.c.endpoint).where(table.c.workspace == store.workspace).order_by(table.c.endpoint)
        known = [name for name in tx.scalars(query) if not name.endswith(STAGING)]
        raise ModelNotFound(model, known=known)
    return row


def change(
    store: Store,
    tx: Connection,
    name: str,
    *,
    actor: str,
    action: str,
    now: datetime,
    why: str | None = None,
    about: Mapping[str, Any] | None = None,
    **values: Any,
) -> int:
    """Change an endpoint (made if it is not there; then `model` is needed) and record who did it. Returns its epoch.

    The share epoch follows only when the shares change, since a new one opens new strata. Within the caller's
    transaction, so that a decision and what it does commit together. about: more facts for the audit entry alone.
    """
    table, row = schema.endpoint, endpoint(store, tx, name)
    if row is None:
        start: dict[str, Any] = {
            "champion": None, "previous": None, "challenger": None, "rollout": None, "shares": {}, "shadows": [],
            "salt": name, "state": LIVE,
        }  # fmt: skip
        epoch = 1
        current = {**start, **values, "share_epoch": epoch}
        tx.execute(
            sa.insert(table).values(
                workspace=store.workspace, endpoint=name, epoch=epoch, changed_by=actor, changed_at=now, **current
            )
        )
    else:
        epoch = row.epoch + 1
        shares = values.get("shares", row.shares)
        current = {**values, "share_epoch": epoch if shares != row.shares else row.share_epoch}
        tx.execute(
            sa.update(table)
            .where(table.c.workspace == store.workspace, table.c.endpoint == name)
            .values(epoch=epoch, changed_by=actor, changed_at=now, **current)
        )
    audit.record(store, tx, actor=actor, action=action, subject=name, epoch=epoch, why=why, about=about or {}, **values)
    return epoch


def all_to(version: int) -> dict[str, float]:
    """Shares with one version taking everything."""
    return {str(version): 1.0}


def split(champion: int, challenger: int, share: float) -> dict[str, float]:
    """Shares with the challenger at `share`; an arm without any is left out."""
    if share <= 0.0:
        return all_to(champion)
    if share >= 1.0:
        return all_to(challenger)
    return {str(champion): round(1.0 - share, 9), str(challenger): share}
