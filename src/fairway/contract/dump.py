"""Settings and contracts as TOML that reads back equal, with comments where a person will look."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any

from fairway.contract.columns import Column, Contract
from fairway.contract.settings import Settings, SourceSettings
from fairway.contract.view import format_duration

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_COMMENT_AT = 30
_TABLES = ("data", "split", "train", "gates", "endpoint", "rollout", "monitor", "retrain", "log", "limits")
_TOP = (
    "format", "name", "task", "target", "positive", "entity", "at", "label_delay", "owner", "purpose", "risk",
    "defaults",
)  # fmt: skip
_NEEDED = ("format", "name", "task", "target", "defaults")
_NOTHING = {"label_delay": "unknown", "retrain.every": "never"}  # how None is written where it is shown


def toml_value(value: Any) -> str:
    """A value as TOML. Raises: TypeError for what fairway's files never hold (dates, None).

    >>> toml_value(["a", 1.5, True]), toml_value('say "hi"')
    ('["a", 1.5, true]', '"say \\\\"hi\\\\""')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "inf" if value > 0 else "-inf" if value < 0 else "nan"
        return repr(value)
    if isinstance(value, timedelta):
        return toml_value("none" if not value else format_duration(value))
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() or c == " " else _code(c)) for c in value) + '"'
    if isinstance(value, tuple) and len(value) == 2 and None in value:  # a range with an open end
        low, high = value
        return toml_value([-math.inf if low is None else low, math.inf if high is None else high])
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no place in TOML here")


def _code(char: str) -> str:
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def toml_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)


def line(key: str, value: Any, comment: str | None = None) -> str:
    text = f"{toml_key(key)} = {toml_value(value)}"
    return f"{text:<{_COMMENT_AT}} # {comment}" if comment else text


def dump_settings(
    settings: Settings,
    *,
    comments: Mapping[str, str] | None = None,
    show: Sequence[str] = (),
    extra: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """fairway.toml. Only what differs from its default is written, and what `show` names ("rollout.margin").

    comments: by key ("label_delay", "rollout.margin") or table ("gates"). extra: comment lines at the end of a table.
    """
    notes, more = comments or {}, extra or {}
    lines = []
    for key in _TOP:
        value = getattr(settings, key)
        if value is None and key in show and key in _NOTHING:
            value = _NOTHING[key]
        if value is not None and (key in _NEEDED or key in show or value != default_of(Settings, key)):
            lines.append(line(key, value, notes.get(key)))
    for table in _TABLES:
        value = getattr(settings, table)
        inner = _members(table, value, settings, notes, show)
        inner += [f"# {text}" for text in more.get(table, ())]
        if inner or table in notes:
            header = f"[{table}]"
            lines += ["", f"{header:<{_COMMENT_AT}} # {notes[table]}" if table in notes else header, *inner]
        if table == "data":
            for name, source in settings.sources.items():
                lines += ["", f"[sources.{toml_key(name)}]"]
                lines += [
                    line(key, item)
                    for key, item in vars(source).items()
                    if item is not None and item != default_of(SourceSettings, key)
                ]
    return "\n".join(lines) + "\n"


def _members(table: str, value: Any, settings: Settings, notes: Mapping[str, str], show: Sequence[str]) -> list[str]:
    if isinstance(value, Mapping):
        return [line(key, item, notes.get(f"{table}.{key}")) for key, item in value.items()]
    found = []
    for key in (f.name for f in fields(value)):
        item, path = getattr(value, key), f"{table}.{key}"
        default = default_of(type(value), key)
        if path == "rollout.margin" and settings.task == "regression":
            default = None  # regression: 2 % of the champion's mean, which is what its absence says
        if item is None and path in show and path in _NOTHING:
            item = _NOTHING[path]
        if item is not None and (path in show or item != default):
            found.append(line(key, item, notes.get(path)))
    return found


def default_of(kind: type, key: str) -> Any:
    assert is_dataclass(kind)
    return next(f.default for f in fields(kind) if f.name == key)


def dump_contract(contract: Contract, *, comments: Mapping[str, str] | None = None, head: Sequence[str] = ()) -> str:
    """contract.toml. comments: by "column.key". head: comment lines at the top."""
    notes = {"reviewed": "set true when a person has read this file"} | dict(comments or {})
    lines = [f"# {text}" for text in head]
    lines += [line("format", contract.format), line("reviewed", contract.reviewed, notes["reviewed"])]
    lines += [line(key, value) for key in ("rows", "fresh") if (value := getattr(contract, key)) is not None]
    for column in contract.columns:
        lines += ["", f"[columns.{toml_key(column.name)}]", *_column(column, notes)]
    for rule in contract.rules:
        lines += ["", f"[rules.{toml_key(rule.name)}]"]
        lines += [line(key, value) for key, value in vars(rule).items() if key != "name" and value is not None]
    for name, columns in contract.sources:
        if not columns:
            lines += ["", f"[sources.{toml_key(name)}.columns]"]
        for column in columns:
            lines += ["", f"[sources.{toml_key(name)}.columns.{toml_key(column.name)}]", *_column(column, {})]
    return "\n".join(lines) + "\n"


def column_lines(column: Column) -> list[str]:
    """One column's table, `[columns.NAME]` first."""
    return [f"[columns.{toml_key(column.name)}]", *_column(column, {})]


def _column(column: Column, notes: Mapping[str, str]) -> list[str]:
    found = []
    for key in (f.name for f in fields(column) if f.name != "name"):
        value = getattr(column, key)
        default = "later" if key == "known" and column.role == "target" else default_of(Column, key)
        shown = key == "type" or (key == "known" and column.role == "feature")
        if value is not None and (shown or value != default):
            found.append(line(key, value, notes.get(f"{column.name}.{key}")))
    return found
