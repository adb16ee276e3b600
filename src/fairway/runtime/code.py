"""A project's code: what belongs to model.py, importing it, and calling its functions on Polars frames."""

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from fairway.contract.view import ViewSpec
from fairway.data.frames import as_asked, as_polars
from fairway.errors import ModelCodeError
from fairway.runtime.closure import MODEL, closure

__all__ = ["MODEL", "Code", "closure", "import_code", "views_of"]

_numbers = itertools.count(1)
_on_path: list[str] = []


def views_of(module: ModuleType) -> tuple[ViewSpec, ...]:
    """The views of model.py in the order of their definition: functions that carry @fairway.view, and names that a
    declared view (`fairway.latest`, `fairway.window`) is bound to."""
    found: list[ViewSpec] = []
    for name, value in vars(module).items():
        if isinstance(value, ViewSpec):
            found.append(replace(value, name=name))
        elif isinstance(spec := getattr(value, "__fairway_view__", None), ViewSpec):
            found.append(spec)
    return tuple(found)


@dataclass(frozen=True)
class Code:
    """A project's imported code. Its functions are called with the kind of frame that they ask for."""

    module: ModuleType
    views: tuple[ViewSpec, ...]

    def has(self, name: str) -> bool:
        return callable(getattr(self.module, name, None))

    def function(self, name: str) -> Callable[..., Any]:
        """Raises: ModelCodeError when model.py does not define it."""
        found = getattr(self.module, name, None)
        if not callable(found):
            raise ModelCodeError(f"{MODEL} has no function {name}()")
        return found  # type: ignore[no-any-return]

    def features(self, data: pl.DataFrame) -> pl.DataFrame:
        """What features() makes of typed rows: one row each. Raises: ModelCodeError for anything else."""
        function = self.function("features")
        made = as_polars(function(as_asked(data, function, 0)), f"{MODEL}, features()")
        if made.height != data.height:
            raise ModelCodeError(
                f"{MODEL}, features() returned {made.height:,} rows for {data.height:,}; every row needs its features"
            )
        if made.width == 0:
            raise ModelCodeError(f"{MODEL}, features() returned no columns")
        return made

    def for_model(self, X: pl.DataFrame) -> Any:
        """X as the kind of frame that train() is annotated with: a model sees the same kind when it predicts."""
        return as_asked(X, self.function("train"), 0)


def import_code(folder: Path) -> Code:
    """Import model.py of `folder` under a name of its own; the folder's other modules by their plain names.

    Runs the project's code: only in a process made for that. Writes no byte-code. A second call imports anew: the
    earlier code keeps the modules that it already holds. Raises: whatever the code raises.
    """
    folder = folder.resolve()
    tops = {p.name.removesuffix(".py") for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()}
    for name in [n for n in sys.modules if n.split(".")[0] in tops and n.split(".")[0] != "fairway"]:
        if _from_project(sys.modules[name]):
            del sys.modules[name]
    for old in _on_path:
        if old in sys.path:
            sys.path.remove(old)
    _on_path[:] = [str(folder)]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    package = ModuleType(f"fairway_project_{next(_numbers)}")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    spec = importlib.util.spec_from_file_location(f"{package.__name__}.model", folder / MODEL)
    if spec is None or spec.loader is None:
        raise ModelCodeError(f"{folder / MODEL} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    _code_folders.add(str(folder))
    with _no_bytecode():
        spec.loader.exec_module(module)
    return Code(module, views_of(module))


_code_folders: set[str] = set()


def _from_project(module: ModuleType) -> bool:
    places: Sequence[str] = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", []) or [])]
    return any(place.startswith(folder) for place in places if place for folder in _code_folders)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
