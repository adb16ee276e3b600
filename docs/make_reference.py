"""Writes docs/reference/commands.md and settings.md from the program itself: python docs/make_reference.py

`tests/unit/test_docs.py` compares the files with what this makes.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from fairway.cli.main import app
from fairway.contract.columns import Column, Contract, Rule
from fairway.contract.dump import toml_value
from fairway.contract.settings import Settings, SourceSettings

FOLDER = Path(__file__).parent / "reference"
WIDTH = 100
MADE = "<!-- made by docs/make_reference.py: change the program, then run it -->\n\n"


# -- commands --------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its help page."""
    parts = [
        "# Commands\n\n",
        MADE,
        "Exit codes: 0 done; 1 the gate, data, model code or rollout said no; 2 the command or a file is wrong; 3 not "
        "decided or not finished; 70 our failure.\n",
    ]
    for path, text in _helps(typer.main.get_command(app), ["fairway"]):
        parts.append(f"\n{'#' * min(len(path) + 1, 4)} {' '.join(path)}\n\n{_indented(text)}\n")
    return "".join(parts)


def _helps(command: Any, path: list[str], parent: Any = None) -> Iterator[tuple[list[str], str]]:
    known = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, info_name=path[-1], parent=parent, **known)
    yield path, command.get_help(context)
    if hasattr(command, "commands"):
        for name in command.list_commands(context):
            below = command.commands[name]
            if "not in this version" not in (below.help or ""):
                yield from _helps(below, [*path, name], context)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())


# -- settings --------------------------------------------------------------------------------------------------------


def settings() -> str:
    """Every key of fairway.toml and contract.toml."""
    parts = [
        "# Settings\n\n",
        MADE,
        "Unknown keys are refused, with the nearest known one. Durations are texts such as `\"90s\"`, `\"6h\"`, "
        "`\"30d\"`; times are ISO texts, a bare date is its first moment in UTC. Two keys may be absent by word: "
        "`label_delay = \"unknown\"`, `every = \"never\"`.\n",
        "\n## fairway.toml\n\n",
        _table(Settings, skip=("data", "sources", "split", "train", "gates", "endpoint", "rollout", "monitor",
                               "retrain", "log", "limits")),
    ]  # fmt: skip
    meanings = _meanings(Settings)
    for item in fields(Settings):
        hint = get_type_hints(Settings)[item.name]
        if item.name == "sources":
            parts.append(f"\n### [sources.NAME]\n\n{_first(SourceSettings)}\n\n{_table(SourceSettings)}")
        elif is_dataclass(hint):
            parts.append(f"\n### [{item.name}]\n\n{_first(hint)}\n\n{_table(hint)}")
        elif item.name in ("train", "gates"):
            parts.append(f"\n### [{item.name}]\n\n{_sentence(meanings[item.name])}\n")
    parts.append("\n## contract.toml\n\n" + _table(Contract, skip=("columns", "sources", "rules")))
    parts.append(f"\n### [rules.NAME]\n\n{_first(Rule)}\n\n{_table(Rule, skip=('name',))}")
    parts.append(f"\n### [columns.NAME]\n\n{_first(Column)}\n\n{_table(Column, skip=('name',))}")
    return "".join(parts)


def _table(kind: type, *, skip: tuple[str, ...] = ()) -> str:
    hints, meanings = get_type_hints(kind), _meanings(kind)
    rows = ["| key | type | default | meaning |\n| --- | --- | --- | --- |\n"]
    for item in fields(kind):
        if item.name not in skip:
            hint = hints[item.name]
            rows.append(f"| `{item.name}` | {_type(hint)} | {_default(item, hint)} | {meanings[item.name]} |\n")
    return "".join(rows)


def _meanings(kind: type) -> dict[str, str]:
    """The docstring's lines "key: meaning"; raises KeyError where a key has none."""
    names, found, last = {item.name for item in fields(kind)}, {}, None
    for line in (kind.__doc__ or "").splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        if match and match[1] in names:
            last = match[1]
            found[last] = match[2].strip()
        elif last is not None and line.startswith("      "):
            found[last] += " " + line.strip()
    if missing := names - set(found):
        raise KeyError(f"{kind.__name__} does not say what is {', '.join(sorted(missing))}")
    return found


def _first(kind: type) -> str:
    return (kind.__doc__ or "").split("\n\n")[0].strip()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _type(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in inner if part is not type(None)))
    if origin is tuple:
        return "[low, high]" if len(inner) == 2 and inner[1] is not Ellipsis else f"list of {_type(inner[0])}s"
    names = {str: "text", bool: "true, false", int: "whole number", float: "number", timedelta: "duration"}
    return names.get(hint, "table")


def _default(item: Field[Any], hint: Any) -> str:
    value = item.default
    if value is MISSING and type(None) not in get_args(hint):
        return "needed"
    if value is MISSING or value is None or value == ():
        return "-"
    return f"`{toml_value(value)}`"


PAGES = {"commands.md": commands, "settings.md": settings}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
