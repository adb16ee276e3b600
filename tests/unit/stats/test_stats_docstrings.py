"""Docstring examples run, and the package stays pure."""

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import fairway.stats

MODULES = sorted(m.name for m in pkgutil.iter_modules(fairway.stats.__path__))
PURE = {
    "ast", "collections", "dataclasses", "fairway", "hashlib", "itertools", "math", "numpy", "scipy", "sys", "typing",
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(f"fairway.stats.{name}")).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_pure(name):
    tree = ast.parse((Path(fairway.stats.__path__[0]) / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    assert {module.split(".")[0] for module in found} <= PURE
    assert all(m.startswith("fairway.stats") for m in found if m.startswith("fairway"))
