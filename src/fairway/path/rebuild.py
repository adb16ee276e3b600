"""A run's environment, built again by uv: the recorded Python, its packages, and a copy of this fairway."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fairway
from fairway.errors import EnvironmentFailed, MissingExtra
from fairway.runtime.environment import installed, requirements

_LISTS = ("requirements.lock", "requirements.txt")  # of the lock files, those that an installer reads as they are


@dataclass(frozen=True)
class Rebuilt:
    """python: its interpreter. environment: as `runtime.environment` describes one."""

    python: Path
    environment: dict[str, Any]


def rebuild(folder: Path, recorded: Mapping[str, Any], locks: Mapping[str, bytes]) -> Rebuilt:
    """Make the environment in the new `folder`; fairway itself is copied, for it may come from no index.

    recorded: of the package's manifest. locks: its lock files; their hashes are verified by uv where they have some.
    Every package that the run's code or fairway imports gets its recorded version, and what these need theirs.
    Raises: MissingExtra without uv; EnvironmentFailed with uv's own words.
    """
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise MissingExtra("uv missing: pip install uv")
    folder.mkdir(parents=True)
    same = recorded["python"] == ".".join(map(str, sys.version_info[:3]))
    _run([uv, "venv", "--quiet", "--python", sys.executable if same else recorded["python"], str(folder / "venv")])
    python = folder / "venv" / "bin" / "python"
    versions: Mapping[str, str] = recorded["packages"]
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{n}=={v}\n" for n, v in versions.items() if n != "fairway"), encoding="utf-8")
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    for name in _LISTS:
        if name in locks:
            (folder / name).write_bytes(locks[name])
            _run([*install, "-r", str(folder / name)])
            break
    wanted = {*recorded.get("imports", {}).values(), *requirements("fairway")} - {"fairway"}
    names = folder / "wanted.txt"
    names.write_text("".join(f"{n}=={versions[n]}\n" for n in sorted(wanted) if n in versions), encoding="utf-8")
    _run([*install, "-r", str(names), "-c", str(constraints)])
    site = Path(_run([str(python), "-c", "import site; print(site.getsitepackages()[0])"]).strip())
    shutil.copytree(
        Path(fairway.__file__).parent, site / "fairway", ignore=shutil.ignore_patterns("__pycache__"), symlinks=False
    )
    (site / f"fairway-{fairway.__version__}.dist-info").mkdir()
    found = {"python": _run([str(python), "-c", "import platform; print(platform.python_version())"]).strip()}
    return Rebuilt(python, {**found, "packages": installed([str(site)])})


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or " ".join(command)
        raise EnvironmentFailed(f"the run's environment can't be built again: {said[-1500:]}")
    return done.stdout
