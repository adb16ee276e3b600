"""The classes of a target: their names as text, whatever type the column has."""

from typing import Any

from fairway.contract.columns import Column


def class_names(target: Column) -> tuple[str, ...]:
    """The target's classes as text, in the order of their codes: those listed, else false/true, else 0/1.

    >>> class_names(Column(name="churned", type="bool", role="target"))
    ('false', 'true')
    """
    if target.values:
        return target.values
    return ("false", "true") if target.type == "bool" else ("0", "1")


def class_name(value: Any) -> str:
    """A class as text: True is "true", 1 is "1".

    >>> class_name(True), class_name(1), class_name("Yes")
    ('true', '1', 'Yes')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
