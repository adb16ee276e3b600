"""A contract in the Open Data Contract Standard (v3), as plain values: a serializer makes YAML of them.

What the standard has no word for (when a value is known, the order of categories, nulls by token) goes into
customProperties, so that nothing is lost; what fairway does not know (servers, prices, support) is left out.
"""

from typing import Any

from fairway.contract.columns import Column, Contract

API_VERSION = "v3.1.0"
_LOGICAL = {
    "int": "integer", "float": "number", "bool": "boolean", "category": "string", "string": "string", "text": "string",
    "datetime": "timestamp", "date": "date", "vector": "array", "image": "string",
}  # fmt: skip
_PHYSICAL = {
    "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "category": "VARCHAR", "string": "VARCHAR",
    "text": "VARCHAR", "datetime": "TIMESTAMP WITH TIME ZONE", "date": "DATE", "vector": "DOUBLE[]", "image": "BLOB",
}  # fmt: skip
_CUSTOM = ("role", "known", "null_values", "decimal", "seen", "values", "unseen", "zone", "log", "formats", "length",
           "monotonic", "assumed", "unit")  # fmt: skip
_EMPTY: tuple[object, ...] = (None, (), "feature", ".", "null", "plain")


def as_odcs(contract: Contract, *, name: str, owner: str | None = None, entity: str | None = None) -> dict[str, Any]:
    """The document, keys in the standard's order. name: of the model. owner: who answers for the data."""
    tables = [_table(name, contract.columns, contract, entity)]
    tables += [_table(source, columns, None, None) for source, columns in contract.sources]
    found: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": contract.version,
        "name": name,
        "version": f"{contract.format}.0.0",
        "status": "active" if contract.reviewed else "draft",
        "description": {"purpose": f"Training and prediction of {name}"},
        "schema": tables,
    }
    if owner:
        found["team"] = {"members": [{"username": owner, "role": "owner"}]}
    if contract.fresh is not None:
        at = contract.by_role("at")
        element = {"element": f"{name}.{at.name}"} if at is not None else {}
        days = contract.fresh.total_seconds() / 86_400
        found["slaProperties"] = [{"property": "latency", "value": days, "unit": "d", **element}]
    return found


def _table(name: str, columns: tuple[Column, ...], contract: Contract | None, entity: str | None) -> dict[str, Any]:
    quality: list[dict[str, Any]] = []
    if contract is not None:
        if contract.rows is not None:
            quality.append(_library("rowCount", mustBeBetween=list(contract.rows)))
        for rule in contract.rules:
            text = rule.check + (f" when {rule.when}" if rule.when else "")
            quality.append({"type": "text", "name": rule.name, "description": text})
    return {
        "name": name,
        "logicalType": "object",
        "physicalType": "table",
        "properties": [_property(column, entity) for column in columns],
        **({"quality": quality} if quality else {}),
    }


def _property(column: Column, entity: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": column.name,
        "logicalType": _LOGICAL[column.type],
        "physicalType": _PHYSICAL[column.type],
        "required": not column.nulls and column.role != "target",
    }
    if column.why:
        found["description"] = column.why
    if column.unique:
        found["unique"] = True
    if column.role == "entity" or column.name == entity:
        found["businessName"] = "entity"
    options = _options(column)
    if options:
        found["logicalTypeOptions"] = options
    if column.type == "vector":
        found["items"] = {"name": "number", "logicalType": "number", "physicalType": "DOUBLE"}
    if column.type == "category" and column.unseen == "reject":
        valid = _library("invalidValues", mustBe=0)
        found["quality"] = [{**valid, "arguments": {"validValues": list(column.values)}}]
    custom: list[dict[str, Any]] = [{"property": "type", "value": column.type}]
    for key in _CUSTOM:
        value = getattr(column, key)
        if value not in _EMPTY:
            custom.append({"property": key, "value": list(value) if isinstance(value, tuple) else value})
    found["customProperties"] = custom
    return found


def _options(column: Column) -> dict[str, Any]:
    """What the standard lets a logical type say."""
    found: dict[str, Any] = {}
    if column.type in ("string", "text"):
        found["maxLength"] = column.longest
        if column.pattern is not None:
            found["pattern"] = f"^(?:{column.pattern})$"
    if column.type == "vector":
        found |= {"minItems": column.length, "maxItems": column.length}
    elif column.range is not None:
        ends = zip(("minimum", "maximum"), column.range, strict=True)
        found |= {name: end for name, end in ends if end is not None}
    return found


def _library(metric: str, **rule: Any) -> dict[str, Any]:
    return {"type": "library", "metric": metric, **rule}
