"""The one door for optional engines."""

import importlib
from types import ModuleType

from fairway.errors import MissingExtra


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional engine, or say which extra brings it. Raises: MissingExtra."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingExtra(f"{module} missing: pip install 'fairway[{extra}]'") from exc
