"""Runs a command on a disk that fails at its N-th change, then looks whether anything is broken. See disk.c."""

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["kill", "full", "io"]
KINDS: tuple[Kind, ...] = ("kill", "full", "io")

FAIRWAY = [sys.executable, "-m", "fairway.cli.main"]
_SOURCE = Path(__file__).with_name("disk.c")


@dataclass(frozen=True)
class Ended:
    """How a command ended: code (negative: by that signal), what it said, how many changes it made to the disk."""

    code: int
    said: str
    changes: int


class Disk:
    """The faulty disk, compiled into `folder`. Raises: RuntimeError without a C compiler."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            raise RuntimeError("no gcc on this machine (Debian: apt-get install gcc libc6-dev)")
        self._library, self._counter = folder / "disk.so", folder / "changes"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl"], check=True)

    def run(
        self, arguments: Sequence[str], root: Path, *, at: int = 0, kind: Kind = "kill", timeout_s: float = 120
    ) -> Ended:
        """`fairway ARGUMENTS` in `root`, whose changes are counted; at 0 nothing fails."""
        self._counter.write_bytes(struct.pack("Q", 0))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")} | {
            "FAULT_ROOT": str(root.resolve()), "FAULT_COUNTER": str(self._counter), "FAULT_KIND": kind,
            "FAULT_AT": str(at), "LD_PRELOAD": str(self._library), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        # The shell's own number is the command's after exec.
        command = ["/bin/sh", "-c", 'FAULT_MAIN=$$ exec "$@"', "sh", *FAIRWAY, *arguments]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout_s,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout + done.stderr, struct.unpack("Q", self._counter.read_bytes())[0])


def fairway(root: Path, *arguments: str) -> Ended:
    """`fairway ARGUMENTS` on a good disk."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")}
    done = subprocess.run(
        [*FAIRWAY, *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout + done.stderr, 0)


@dataclass(frozen=True)
class Found:
    """One point of a sweep. trouble: what was wrong after it, empty when nothing was."""

    kind: Kind
    at: int
    trouble: str


def sweep(
    disk: Disk,
    prepare: Callable[[], AbstractContextManager[Path]],
    arguments: Callable[[], Sequence[str]],
    points: Iterable[int],
    kinds: Iterable[Kind] = KINDS,
    *,
    holds: Callable[[Path], str] = lambda root: "",
) -> list[Found]:
    """Each point with each kind of fault: prepare a workspace, run the command into the fault, check, run it again.

    prepare: gives the folder to run in, as it was before the command. holds: what else must be true at the end; the
    trouble as a sentence, or "". Right after the fault the workspace must pass the doctor, and a command that failed
    must succeed when it is given again.
    """
    found: list[Found] = []
    for at in points:
        for kind in kinds:
            with prepare() as root:
                given = arguments()
                ended = disk.run(given, root, at=at, kind=kind)
                found.append(Found(kind, at, _trouble(root, given, ended) or holds(root)))
    return found


def _trouble(root: Path, arguments: Sequence[str], ended: Ended) -> str:
    if "Traceback" in ended.said:
        return f"a trace: {ended.said[-600:]}"
    doctor = fairway(root, "admin", "doctor")
    if doctor.code != 0 and not re.search("(was|being) moved", doctor.said):  # a place that is left says so
        return f"the doctor says: {doctor.said[-600:]}"
    if ended.code != 0:
        again = fairway(root, *arguments)
        if again.code != 0:
            return f"again exits {again.code}: {again.said[-600:]} (first: {ended.code}, {ended.said[-300:]})"
    broken = fairway(root, "admin", "audit", "verify")
    return "" if broken.code == 0 else f"the audit log: {broken.said[-600:]}"
