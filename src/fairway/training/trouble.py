"""What went wrong in project code, in one sentence that names the file, the line and what to look at."""

import difflib
import re
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from fairway.errors import FairwayError

CODE = "code"  # the folder that project code is imported from, in a package and in a run


def describe(exc: BaseException) -> dict[str, Any]:
    """The record of a failure: {"ok": False, "message", "trace"}; JSON."""
    trace = "".join(traceback.format_exception(exc))
    return {"ok": False, "message": sentence(exc), "trace": trace[-200_000:]}


def sentence(exc: BaseException) -> str:
    """For example: model.py line 9, in features(): column "TotalCharge" not found; the table has "TotalCharges"."""
    if isinstance(exc, FairwayError):
        return str(exc)
    if isinstance(exc, MemoryError):
        what = "out of memory"
    elif isinstance(exc, SystemExit):
        what = f"called sys.exit({exc.code!r}) before it had a result"
    elif isinstance(exc, KeyboardInterrupt):
        what = "was interrupted"
    else:
        what = _what(exc)
    place = _place(exc.__traceback__)
    return f"{place[0]}: {what}" if place else what


def _what(exc: BaseException) -> str:
    frame = _place(exc.__traceback__)
    columns = _columns(frame[1]) if frame else []
    missing = _missing_column(exc)
    if missing is not None:
        near = difflib.get_close_matches(missing, columns, n=1, cutoff=0.6)
        if near:
            return f'column "{missing}" not found; the table has "{near[0]}".'
        if columns:
            shown = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
            return f'column "{missing}" not found; the table has {shown}.'
        return f'column "{missing}" not found.'
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return f"module {exc.name} is neither installed nor a module of the project that an import statement names"
    text = str(exc).strip().splitlines()
    name = type(exc).__name__
    return f"{name}: {text[0][:500]}" if text else name


def _missing_column(exc: BaseException) -> str | None:
    name = type(exc).__name__
    if name == "ColumnNotFoundError":
        found = re.search(r'"([^"]+)"', str(exc)) or re.search(r"^(\S+)", str(exc))
        return found[1] if found else None
    if isinstance(exc, KeyError) and exc.args and isinstance(exc.args[0], str):
        return exc.args[0] if _from_frame_library(exc.__traceback__) else None
    return None


def _from_frame_library(trace: TracebackType | None) -> bool:
    last = None
    while trace is not None:
        last, trace = trace, trace.tb_next
    return last is not None and any(f"/{name}/" in last.tb_frame.f_code.co_filename for name in ("pandas", "polars"))


def _place(trace: TracebackType | None) -> tuple[str, FrameType] | None:
    """The innermost line of project code on the way to the error."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        name = _relative(code.co_filename)
        if name is not None:
            where = "" if code.co_name == "<module>" else f", in {code.co_name}()"
            found = f"{name} line {trace.tb_lineno}{where}", trace.tb_frame
        trace = trace.tb_next
    return found


def _relative(filename: str) -> str | None:
    """The file's name within the project, when it is project code: it lies in a folder `code` with a model.py."""
    parts = Path(filename).parts
    if CODE not in parts or "site-packages" in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index(CODE)
    rest = parts[place + 1 :]
    return "/".join(rest) if rest and (Path(*parts[: place + 1]) / "model.py").is_file() else None


def _columns(frame: FrameType) -> list[str]:
    """Names of the columns of the frames that the failing function held."""
    names: list[str] = []
    for value in frame.f_locals.values():
        columns = getattr(value, "columns", None)
        if type(value).__module__.split(".")[0] in ("polars", "pandas") and columns is not None:
            names.extend(str(name) for name in columns if str(name) not in names)
    return names
