"""Runs a schema's file and prints, as JSON, what its Pandera schema declares. Started by `outside_schema`, alone."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from fairway._optional import need

_MARK = "fairway-schema:"
_TYPES = (
    ("datetime", "datetime"), ("timestamp", "datetime"), ("date", "date"), ("uint", "int"), ("int", "int"),
    ("float", "float"), ("double", "float"), ("decimal", "float"), ("bool", "bool"), ("categor", "category"),
    ("enum", "category"), ("string", "string"), ("str", "string"), ("object", "string"), ("utf8", "string"),
)  # fmt: skip


def main(path: str, name: str) -> None:
    """The last line of stdout is the answer; what the file itself prints stands before it."""
    need("pandera", extra="pandera")
    schema = _schema(Path(path), name)
    answer: dict[str, Any] = {"error": schema} if isinstance(schema, str) else _read(schema)
    print("\n" + _MARK + json.dumps(answer, default=str), flush=True)


def _schema(path: Path, name: str) -> Any:
    """The DataFrameSchema, or a sentence on why there is none."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if found is None:
        known = [n for n, value in vars(module).items() if hasattr(value, "to_schema") or hasattr(value, "columns")]
        return f"it has no {name}; it has {', '.join(known) or 'no schema'}"
    if hasattr(found, "to_schema"):
        found = found.to_schema()
    if not (hasattr(found, "columns") and hasattr(found, "checks")):
        return f"{name} is a {type(found).__name__}, no DataFrameSchema and no DataFrameModel"
    return found


def _read(schema: Any) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    left: list[str] = []
    for name, column in schema.columns.items():
        if getattr(column, "regex", False):
            left.append(f"column {name}: it stands for many columns, which a contract names one by one: left out")
            continue
        columns[str(name)] = _column(str(name), column, left)
    left += [f"a check over the whole table has no rule here: {_named(check)}" for check in schema.checks]
    unique: list[Any] = list(getattr(schema, "unique", None) or [])
    if len(unique) == 1:
        columns[str(next(iter(unique)))]["unique"] = True
    elif unique:
        left.append(f"unique over {', '.join(map(str, unique))} together has no rule here")
    return {"columns": columns, "left": left}


def _column(name: str, column: Any, left: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"nulls": bool(column.nullable)}
    if column.unique:
        found["unique"] = True
    text = str(column.dtype).lower() if column.dtype is not None else ""
    kind = next((ours for theirs, ours in _TYPES if theirs in text), None)
    if kind is not None:
        found["type"] = kind
    elif text:
        left.append(f"column {name}: {column.dtype} has no type here: as it was")
    low, high = None, None
    for check in column.checks:
        statistics = getattr(check, "statistics", None) or {}
        match check.name:
            case "isin" if all(isinstance(v, str) for v in statistics["allowed_values"]):
                found["values"] = sorted(statistics["allowed_values"])
                found["unseen"] = "reject"
            case "greater_than_or_equal_to":
                low = statistics["min_value"]
            case "less_than_or_equal_to":
                high = statistics["max_value"]
            case "in_range" if statistics.get("include_min", True) and statistics.get("include_max", True):
                low, high = statistics["min_value"], statistics["max_value"]
            case "str_matches":
                pattern = statistics["pattern"]
                text_of = getattr(pattern, "pattern", pattern)
                # Pandera matches from the start and stops anywhere; a contract's pattern is for the whole text.
                found["pattern"] = text_of.removeprefix("^")[:-1] if text_of.endswith("$") else text_of + ".*"
                found["pattern"] = found["pattern"].removeprefix("^")
            case "str_length" if not statistics.get("min_value"):
                found["max_length"] = int(statistics["max_value"])
            case _:
                left.append(f"column {name}: the check {_named(check)} has no rule here")
    if low is not None or high is not None:
        found["range"] = [low, high]
    return found


def _named(check: Any) -> str:
    return str(getattr(check, "error", None) or check.name or "without a name")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
