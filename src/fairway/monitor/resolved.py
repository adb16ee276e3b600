"""Settings as they were resolved and stored with a version, read back as values.

A run, a rollout and an alarm are judged by the settings of the version they are about, not by what fairway.toml says
today: that file may have changed, or be broken, while the version serves.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.contract.settings import Settings
from fairway.contract.view import format_duration, parse_duration
from fairway.errors import VersionNotFound
from fairway.store import schema
from fairway.store.base import Row, Store


def as_dict(settings: Settings) -> dict[str, Any]:
    """JSON form: durations as text ("6h")."""

    def plain(value: Any) -> Any:
        if isinstance(value, timedelta):
            return format_duration(value)
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result


def settings_from(data: Mapping[str, Any]) -> Settings:
    """Inverse of `as_dict`; keys that this fairway does not know are left out. Durations: text, or seconds."""
    result: Settings = _build(Settings, data)
    return result


def _build(kind: Any, data: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: _value(hints[name], item) for name, item in data.items() if name in known})


def _value(kind: Any, item: Any) -> Any:
    if item is None:
        return None
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(next(part for part in typing.get_args(kind) if part is not type(None)), item)
    if kind is timedelta:
        if isinstance(item, timedelta):
            return item
        return parse_duration(item) if isinstance(item, str) else timedelta(seconds=float(item))
    if dataclasses.is_dataclass(kind):
        return item if not isinstance(item, Mapping) else _build(kind, item)
    if origin is tuple:
        return tuple(item)
    if origin is dict:
        inner = typing.get_args(kind)[1]
        return {key: _value(inner, value) for key, value in item.items()}
    return item


def version_row(store: Store, tx: Connection, model: str, version: int) -> Row:
    """Raises: VersionNotFound."""
    table = schema.version
    row = tx.execute(
        sa.select(table).where(table.c.workspace == store.workspace, table.c.model == model, table.c.version == version)
    ).first()
    if row is None:
        where = sa.and_(table.c.workspace == store.workspace, table.c.model == model)
        known = tx.scalars(sa.select(table.c.version).where(where).order_by(table.c.version)).all()
        raise VersionNotFound(model, version, known=list(known))
    return row


def settings_of(store: Store, tx: Connection, model: str, version: int) -> Settings:
    """The settings that `version` was made with. Raises: VersionNotFound."""
    return settings_from(version_row(store, tx, model, version).settings)
