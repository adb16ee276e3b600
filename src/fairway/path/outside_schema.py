"""A Pandera schema as columns of a contract. A child process runs its file, because that is user code."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from fairway._optional import need
from fairway.contract.columns import Column, Contract
from fairway.contract.compare import compare
from fairway.contract.infer import Inferred
from fairway.contract.pattern import unfit
from fairway.contract.table import apply
from fairway.contract.update import Update
from fairway.errors import ModelCodeError, UsageError
from fairway.runtime.surroundings import without_keys

_TIMEOUT_S = 60.0
_MARK = "fairway-schema:"


@dataclass(frozen=True, kw_only=True)
class OutsideSchema:
    """columns: name -> the keys that the schema declares of it. left: what has no rule here, one sentence each."""

    name: str
    columns: dict[str, dict[str, Any]]
    left: tuple[str, ...] = ()


def from_pandera(where: str, *, folder: Path) -> OutsideSchema:
    """`where`: "schema.py:Schema", a DataFrameSchema or DataFrameModel for Polars or pandas, relative to `folder`.

    Raises: UsageError when there is no such file or name, MissingExtra, ModelCodeError when its code fails.
    """
    file, _, name = where.rpartition(":")
    path = (folder / file).resolve()
    if not file or not name.isidentifier():
        raise UsageError(f"{where!r} names no schema; write FILE.py:NAME, for example schema.py:Churn", field="pandera")
    if not path.is_file():
        raise UsageError(f"there is no {path}", field="pandera")
    need("pandera", extra="pandera")
    # Isolated from this process, with its own end: a schema's module may do anything.
    command = [sys.executable, "-m", "fairway.path.pandera_child", str(path), name]
    environment = {**without_keys(), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            command, cwd=path.parent, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise ModelCodeError(f"{path.name} did not end within {_TIMEOUT_S:.0f} s") from exc
    lines = [line for line in ran.stdout.splitlines() if line.startswith(_MARK)]
    if ran.returncode or not lines:
        said = (ran.stderr.strip().splitlines() or ["it ended without an answer"])[-1]
        raise ModelCodeError(f"{path.name}: {said[:300]}", trace=ran.stderr)
    found = json.loads(lines[-1].removeprefix(_MARK))
    if "error" in found:
        raise UsageError(f"{path.name}: {found['error']}", field="pandera")
    return OutsideSchema(
        name=name, columns=msgspec.convert(found["columns"], dict[str, dict[str, Any]]), left=tuple(found["left"])
    )


def overlay(contract: Contract, schema: OutsideSchema) -> Update:
    """The contract with what the schema declares; a column that only one of the two has is said, and left."""
    columns, silent, left = [], [], list(schema.left)
    for column in contract.columns:
        given = schema.columns.get(column.name)
        if given is None:
            columns.append(column)
            silent.append(column.name)
            continue
        made, notes = _declared(column, given)
        columns.append(made)
        left += notes
    if silent:
        listed = ", ".join(silent[:6]) + (", …" if len(silent) > 6 else "")
        left.append(f"{schema.name} says nothing of {listed}: as before")
    known = {c.name for c in contract.columns}
    left += [f"{schema.name} has column {name}, and contract.toml has not: left out" for name in schema.columns
             if name not in known]  # fmt: skip
    made_contract = replace(contract, columns=tuple(columns), reviewed=contract.reviewed)
    changes = compare(contract, made_contract)
    if any(change.key != "seen" for change in changes):
        made_contract = replace(made_contract, reviewed=False)
    return Update(contract=made_contract, changes=changes, left=tuple(left))


def declared(found: Inferred, schema: OutsideSchema, raw: pl.DataFrame, *, file: str) -> Inferred:
    """What `new` inferred, with what the schema declares.

    Raises: ContractViolation, DataError where the table breaks it.
    """
    made = overlay(found.contract, schema)
    columns = [c for c in made.contract.columns if c.role != "ignore"]
    target = made.contract.column(found.target)
    frame = apply(raw, columns, file=file).frame
    features = [c for c in columns if c.role == "feature" and c.known == "request"]
    head = f"{schema.name}: {len(made.changes)} of its declarations differ from what the table suggests"
    said = (("schema", head), *(("", text) for text in made.left))
    return replace(
        found, contract=made.contract, frame=frame.select(*(c.name for c in columns if c != target), target.name),
        decisions=(*found.decisions, *said), strings=tuple(c.name for c in features if c.type == "string"),
        texts=tuple(c.name for c in features if c.type == "text"),
    )  # fmt: skip


def _declared(column: Column, given: Mapping[str, Any]) -> tuple[Column, list[str]]:
    """The column with the schema's keys, where they fit its type."""
    notes = []
    keys = dict(given)
    kind = keys.get("type", column.type)
    text_like = ("string", "text", "category")
    if kind == "string" and column.type in text_like:
        kind = column.type  # the schema knows texts only; which kind of text is the contract's to say
    if kind == "string" and keys.get("values"):
        kind = "category"
    keys["type"] = kind
    if column.role == "target" and kind == "category" and column.values:
        keys.pop("values", None)
    if kind not in ("int", "float", "datetime", "date") and keys.pop("range", None) is not None:
        notes.append(f"column {column.name}: a range has no meaning for {kind}: left out")
    pattern = keys.get("pattern")
    if pattern is not None and (kind not in ("string", "text") or unfit(pattern)):
        keys.pop("pattern")
        notes.append(f"column {column.name}: the pattern {pattern!r} {unfit(pattern) or f'has no place on a {kind}'}")
    if kind == "datetime" and column.type != "datetime":
        keys["zone"] = column.zone or "UTC"
    if kind != "category":
        keys.pop("values", None)
    values = {"values": column.values} if kind == "category" and "values" not in keys else {}
    if kind == "category" and not (keys.get("values") or column.values):
        notes.append(f"column {column.name}: a category without a list of values: as it was")
        return column, notes
    fresh = {} if kind == column.type else {"seen": None, "length": None, "formats": (), "null_values": ()}
    merged = {**fresh, **values, **keys}
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in merged.items()}
    if column.role in ("entity", "at"):
        made["nulls"] = False
    assumed = tuple(key for key in column.assumed if key not in made)
    return replace(column, **made, assumed=assumed), notes
