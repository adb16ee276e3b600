"""Shipped suites, planted streams, and the driver that replays history.

`StoreSuite`, `BlobSuite` and `OnlineSuite` are what a backend has to pass: subclass one in a test module and give its
fixture.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "BlobSuite": "fairway.testing.blob_suite",
    "OnlineSuite": "fairway.testing.online_suite",
    "StoreSuite": "fairway.testing.store_suite",
}
__all__ = ["BlobSuite", "OnlineSuite", "StoreSuite"]

if TYPE_CHECKING:
    from fairway.testing.blob_suite import BlobSuite as BlobSuite
    from fairway.testing.online_suite import OnlineSuite as OnlineSuite
    from fairway.testing.store_suite import StoreSuite as StoreSuite


def __getattr__(name: str) -> Any:
    if name in _HOME:  # they import pytest, which who replays history does not need
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fairway.testing' has no attribute {name!r}")
