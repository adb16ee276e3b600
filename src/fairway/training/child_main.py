"""The inside of a child process: wait for the work, do it, record how it went. See `train.child`."""

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    folder = Path(sys.argv[1])
    _die_with_parent()
    me = os.getpid()
    try:
        for module in sys.argv[2:]:
            with contextlib.suppress(ImportError):  # only a head start: what is really needed fails where it is used
                importlib.import_module(module)
        line = sys.stdin.buffer.readline()
        if not line:
            return  # the parent changed its mind
        work = json.loads(line)
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.dup2(descriptor, 0)
        _limit(work["address_space"])
        module, _, name = work["target"].partition(":")
        value = getattr(importlib.import_module(module), name)(work["payload"])
        record: dict[str, Any] = {"ok": True, "value": value}
        data = json.dumps(record)
    except BaseException as exc:  # whatever it is, SystemExit too: the run has failed, and the parent must learn why
        if os.getpid() != me:
            os._exit(1)  # a fork of project code that came back here is not us
        from fairway.training.trouble import describe

        data = json.dumps(describe(exc))
    if os.getpid() != me:
        os._exit(1)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    temporary = folder / "result.tmp"
    temporary.write_text(data)
    temporary.rename(folder / "result.json")
    os._exit(0)  # no exit handlers, no waiting for threads


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            os._exit(1)


def _limit(address_space: int) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = address_space if hard == resource.RLIM_INFINITY else min(address_space, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


if __name__ == "__main__":
    main()
