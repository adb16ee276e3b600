"""What belongs to model.py: found in the text, without running it. Light: imports nothing of the model's world."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fairway.errors import ModelCodeError

MODEL = "model.py"


def closure(root: Path) -> dict[str, bytes]:
    """model.py and every module of the project that it imports, directly or through another: relative path -> bytes.

    Found in the text, without running it; an import by a computed name is not seen. Comments count as content.
    Raises: ModelCodeError for a missing model.py, a syntax error, a package that is not installed or a module that
    has the name of one.
    """
    root = root.resolve()
    if not (root / MODEL).is_file():
        raise ModelCodeError(f"{root / MODEL} is missing: it holds features(data) and train(X, y, params)")
    found: dict[str, bytes] = {}
    waiting = [MODEL]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = (root / name).read_bytes()
        waiting.extend(_imports(root, name, found[name]))
    for name in found:
        top = Path(name).parts[0].removesuffix(".py")
        if top in sys.stdlib_module_names or top in ("fairway", "polars", "numpy", "sklearn", "pandas"):
            raise ModelCodeError(f"{name} has the name of an installed module, {top}; rename it")
    return dict(sorted(found.items()))


def _imports(root: Path, name: str, data: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(data, filename=name)
    except (SyntaxError, ValueError) as exc:
        line = f" line {exc.lineno}" if isinstance(exc, SyntaxError) and exc.lineno else ""
        raise ModelCodeError(f"{name}{line}: {exc.msg if isinstance(exc, SyntaxError) else exc}") from exc
    guarded = _guarded(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [(alias.name, True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = Path(name).parent.parts
            base = base[: len(base) - node.level + 1] if node.level else ()
            stem = ".".join((*base, node.module) if node.module else base)
            modules = [(stem, True)] if node.module else []
            modules += [(f"{stem}.{alias.name}".lstrip("."), False) for alias in node.names]
        else:
            continue
        for module, required in modules:
            local = list(_local(root, module))
            yield from local
            top = module.split(".")[0]
            if local or not required or id(node) in guarded or (isinstance(node, ast.ImportFrom) and node.level):
                continue
            if not _installed(top) and not (root / top).is_dir():
                raise ModelCodeError(
                    f"{name} line {node.lineno} imports {top}, which is neither installed nor a module of the project"
                    f"; install it, or add {top}.py"
                )


def _guarded(tree: ast.AST) -> set[int]:
    """Imports that may fail: inside try, or in a branch that may not run."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.If | ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(id(inner) for inner in ast.walk(node))
    return found


def _installed(top: str) -> bool:
    if top in sys.stdlib_module_names or top in sys.modules:
        return True
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def _local(root: Path, module: str) -> Iterator[str]:
    """Files of the project that importing `module` runs: the packages above it and itself."""
    parts = module.split(".") if module else []
    for end in range(1, len(parts) + 1):
        place = Path(*parts[:end])
        for candidate in (place / "__init__.py", place.with_suffix(".py")):
            path = root / candidate
            if path.is_file() and path.resolve().is_relative_to(root):
                yield candidate.as_posix()
                break


def packages(code: Mapping[str, bytes]) -> tuple[str, ...]:
    """Modules from outside the project that the code imports when it is loaded: what a process can import ahead."""
    own = {Path(name).parts[0].removesuffix(".py") for name in code}
    found: set[str] = set()
    for data in code.values():
        tree = ast.parse(data)
        for node in tree.body:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return tuple(sorted(name for name in found if name.split(".")[0] not in own and name.split(".")[0] != "fairway"))
