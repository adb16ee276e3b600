"""fairway: the golden path from a table to a guarded endpoint, and the loop that keeps the model good.

Importing it loads neither numpy nor polars; each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "view": "fairway.contract.view",
    "latest": "fairway.contract.view",
    "window": "fairway.contract.view",
    "new": "fairway.path.api",
    "project": "fairway.path.api",
    "train": "fairway.path.api",
    "deploy": "fairway.path.api",
    "rollback": "fairway.path.api",
    "load": "fairway.path.api",
    "log_frame": "fairway.path.api",
}
__all__ = ["deploy", "latest", "load", "log_frame", "new", "project", "rollback", "train", "view", "window"]

if TYPE_CHECKING:
    from fairway.contract.view import latest as latest
    from fairway.contract.view import view as view
    from fairway.contract.view import window as window


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fairway' has no attribute {name!r}")
