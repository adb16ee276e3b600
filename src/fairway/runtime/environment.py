"""The environment that a model was trained in: Python, installed packages, lock files and the machine.

`environment` is part of a package and of its hash; `machine` is not: the same bytes may come from two machines.
"""

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fairway import fingerprint

LOCKS = ("requirements.lock", "requirements.txt", "uv.lock", "poetry.lock", "pdm.lock")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def environment(root: Path, modules: Iterable[str] = ()) -> dict[str, Any]:
    """python, packages (name: version, all that are installed), imports (of `modules`: name: its package), locks
    (file: SHA-256) and digest, one hash of it. A module whose package can't be told is left out of imports."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": installed(sys.path),
        "imports": _imports(modules),
        "locks": {name: fingerprint.of_bytes(data) for name, data in lock_files(root).items()},
    }
    return found | {"digest": fingerprint.of_value(found)}


def lock_files(root: Path) -> dict[str, bytes]:
    """The project's lock files: they go into the package, so that the environment can be built again."""
    return {name: (root / name).read_bytes() for name in LOCKS if (root / name).is_file()}


def machine(*, threads: int) -> dict[str, Any]:
    """What the hardware and the system add: they may change the last bits of a training, or its speed."""
    return {
        "system": f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}".strip(),
        "processors": os.cpu_count() or 1,
        "threads": threads,
    }


def installed(places: Sequence[str]) -> dict[str, str]:
    """Name: version of the packages in these folders.

    By the names of the *.dist-info folders: reading every package's metadata takes 0.1 s, and says the same.
    """
    found: dict[str, str] = {}
    for place in places:
        for folder in Path(place or ".").glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").partition("-")
            found.setdefault(plain(name), version)
    if not found:
        found = {plain(item.name): item.version for item in metadata.distributions()}
    return dict(sorted(found.items()))


def plain(name: str) -> str:
    """A package's name in its one form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _imports(modules: Iterable[str]) -> dict[str, str]:
    tops = sorted({name.split(".")[0] for name in modules} - set(sys.stdlib_module_names))
    folders = [f for place in sys.path for f in Path(place or ".").glob("*.dist-info")]
    named = {plain(f.name.removesuffix(".dist-info").partition("-")[0]) for f in folders}
    found = {top: plain(top) for top in tops if plain(top) in named}
    missing = [top for top in tops if top not in found]
    for folder in folders if missing else ():
        record = folder / "RECORD"
        text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
        for top in missing:
            if text.startswith((f"{top}/", f"{top}.py,")) or f"\n{top}/" in text or f"\n{top}.py," in text:
                found.setdefault(top, plain(folder.name.removesuffix(".dist-info").partition("-")[0]))
    return dict(sorted(found.items()))


def needed(environment: Mapping[str, Any]) -> set[str]:
    """The packages that a run's code and fairway need, themselves and by way of others, as far as is known here."""
    waiting = ["fairway", *environment.get("imports", {}).values()]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or name not in environment["packages"]:
            continue
        found.add(name)
        waiting.extend(requirements(name))
    return found


def requirements(name: str) -> list[str]:
    """What an installed package asks for, without its extras; empty when it is not installed here."""
    try:
        asked = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    return [plain(m[0]) for line in asked if "extra ==" not in line and (m := _REQUIREMENT.match(line))]
