"""The environment that a model was trained in: Python, installed packages, and the project's lock file."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from fairway import fingerprint

LOCKS = ("requirements.lock", "requirements.txt", "uv.lock", "poetry.lock", "pdm.lock")


def environment(root: Path) -> dict[str, Any]:
    """python, packages (name: version, all that are installed), locks (file: SHA-256) and digest, one hash of it."""
    packages: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.name
        if name:
            packages.setdefault(name.lower().replace("_", "-"), distribution.version)
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items())),
        "locks": {name: fingerprint.of_file(root / name) for name in LOCKS if (root / name).is_file()},
    }
    return found | {"digest": fingerprint.of_value(found)}
