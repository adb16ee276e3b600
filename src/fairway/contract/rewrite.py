"""contract.toml written again in place: comments, order and spacing of what did not change stay as they are."""

from dataclasses import fields
from typing import Any

import tomlkit

from fairway.contract.columns import Column, Contract
from fairway.contract.dump import column_lines, default_of, toml_value
from fairway.contract.text_columns import parse_contract
from fairway.errors import SettingsError


def rewrite(text: str, contract: Contract) -> str:
    """The file's text with the contract's columns and `reviewed` as given; rules, rows and sources are left alone.

    Raises: SettingsError when what would be written does not read back as `contract`.
    """
    document = tomlkit.parse(text)
    old = parse_contract(text)
    if contract.reviewed != old.reviewed:
        document["reviewed"] = contract.reviewed
    tables: Any = document["columns"]
    before = {c.name: c for c in old.columns}
    wanted = {c.name: c for c in contract.columns}
    for name in before:
        if name not in wanted:
            del tables[name]
    for name, column in wanted.items():
        if name in before:
            _change(tables[name], before[name], column)
    made = tomlkit.dumps(document).rstrip("\n") + "\n"
    # New columns come last, as text: a table that is written in several places takes no new member.
    made += "".join("\n" + "\n".join(column_lines(c)) + "\n" for n, c in wanted.items() if n not in before)
    _check(made, contract)
    return made


def _check(text: str, contract: Contract) -> None:
    try:
        if parse_contract(text).columns == contract.columns:
            return
        reason = "write one [columns.NAME] table per column"
    except SettingsError as error:
        reason = str(error).removeprefix("contract.toml ")
    raise SettingsError(f"what changed does not go with the rest of the file: {reason}", file="contract.toml")


def _change(table: Any, old: Column, new: Column) -> None:
    for key in (f.name for f in fields(Column)):
        a, b = getattr(old, key), getattr(new, key)
        if a == b or key == "name":
            continue
        if _is_default(key, new):
            table.remove(key)
        else:
            table[key] = _value(b)


def _is_default(key: str, column: Column) -> bool:
    value = getattr(column, key)
    if key == "known":
        return bool(value == ("later" if column.role == "target" else "request"))
    return bool(value is None or value == default_of(Column, key))


def _value(value: Any) -> Any:
    """As dump_contract writes it, so that both ways of writing look alike."""
    return tomlkit.value(toml_value(value))
