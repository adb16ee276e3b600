"""Files of this machine: which ones an address means, and each read as a whole or refused, with its hash."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from fairway import clock, fingerprint
from fairway.data import source_rows
from fairway.data.delimited import read_csv, refuse_duplicates
from fairway.data.parquet_foot import size_of
from fairway.data.source_json import read_json_lines
from fairway.data.source_rows import memory_limit
from fairway.data.source_text import Dialect
from fairway.errors import DataError

KINDS = {
    ".parquet": "Parquet", ".csv": "CSV", ".csv.gz": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines",
    ".jsonl.gz": "JSON lines", ".ndjson.gz": "JSON lines",
}  # fmt: skip
SUFFIXES = tuple(KINDS)
_WILD = set("*?[")
_SETTLED_S = 2.0  # a file this old can't have been written again without another time of its last change


def kind_of(name: str) -> str | None:
    """Parquet, CSV or JSON lines by a file's name; None for anything else."""
    return next((kind for suffix, kind in KINDS.items() if name.endswith(suffix)), None)


def is_pattern(text: str) -> bool:
    """Whether an address is a glob."""
    return not _WILD.isdisjoint(text)


def one_kind(names: list[str], what: str, file: str) -> list[str]:
    """Files of a folder or glob that are read, in order; no hidden ones. Raises: DataError for none or a mixture."""
    found = sorted(n for n in names if kind_of(n) and not n.rsplit("/", 1)[-1].startswith((".", "_")))
    used = {kind_of(name) for name in found}
    kinds = [kind for kind in dict.fromkeys(KINDS.values()) if kind in used]
    if not found:
        raise DataError(f"the {what} holds no file of {', '.join(SUFFIXES)}", file=file)
    if len(kinds) > 1:
        raise DataError(f"the {what} mixes {' and '.join(kinds)} files; keep one kind", file=file)
    return found


def find(text: str, root: Path) -> dict[str, Path]:
    """Shown name -> file, in order, for a file, a folder or a glob. Raises: DataError."""
    if is_pattern(text) and not (root / text).exists():
        base = Path(text)
        anchor = Path(base.anchor) if base.is_absolute() else root
        pattern = str(base.relative_to(base.anchor)) if base.is_absolute() else text
        above = 0
        while pattern.startswith("../"):
            pattern, above = pattern[3:], above + 1
        for _ in range(above):
            anchor = anchor.resolve().parent
        while "/" in pattern and not is_pattern(pattern.split("/", 1)[0]):
            first, pattern = pattern.split("/", 1)
            anchor = anchor / first
        above_all = anchor.parent
        names = [str(p.relative_to(above_all)) for p in anchor.glob(pattern) if p.is_file()]
        return {name: above_all / name for name in one_kind(names, "glob", text)}
    path = (root / text).resolve()
    if path.is_file():
        if kind_of(path.name) is None:
            raise DataError(f"is none of the kinds that can be read: {', '.join(SUFFIXES)}", file=path.name)
        return {path.name: path}
    if not path.exists():
        raise DataError(f"there is no such file or folder (looked in {path.parent})", file=path.name)
    names = [str(p.relative_to(path.parent)) for p in path.rglob("*") if p.is_file()]
    return {name: path.parent / name for name in one_kind(names, "folder", path.name)}


def read_file(path: Path, file: str, dialect: Dialect) -> pl.DataFrame:
    """One file by its kind. Raises: DataError with the file and where in it."""
    kind = kind_of(path.name)
    if kind == "Parquet":
        return read_parquet(path, file)
    return read_csv(path, file=file, dialect=dialect) if kind == "CSV" else read_json_lines(path, file=file)


def read_unchanged(path: Path, file: str, read: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, str]:
    """What `read` makes of the file, and the file's SHA-256: of the same bytes, or refused.

    The hash is taken while the file is read. That it did not change is told by its size, inode and times; a file
    written so shortly before that another write could leave the same times is hashed again.
    """
    try:
        before = _stamp(path)
        hashing = _Hashing(path)
        frame = read()
        digest = hashing.result()
        after = _stamp(path)
        young = clock.machine_now().timestamp() - after[1] / 1e9 < _SETTLED_S
        same = before == after and (not young or fingerprint.of_file(path) == digest)
    except OSError as exc:
        raise DataError(f"can't be read: {exc.strerror or exc}", file=file) from exc
    if not same:
        raise DataError("was replaced or changed while it was read; nothing was kept, try again", file=file)
    return frame, digest


class _Hashing:
    """SHA-256 of a file in another thread; it leaves the interpreter's lock alone."""

    def __init__(self, path: Path) -> None:
        self._path, self._found = path, ""
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = fingerprint.of_file(self._path)
        except OSError as exc:
            self._error = exc

    def result(self) -> str:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def stamp(files: dict[str, Path]) -> list[Any]:
    """What changes when one of the files does, without reading them."""
    return [[name, *_stamp(path)] for name, path in files.items()]


def read_parquet(path: Path, file: str) -> pl.DataFrame:
    """A Parquet file, after a look at its size. Raises: DataError for what is cut, damaged or too large."""
    try:
        with path.open("rb") as handle:
            size = size_of(handle)
        names = pl.scan_parquet(path, glob=False).collect_schema().names()
        refuse_duplicates(names, file)
        source_rows.refuse_many(size.rows, len(names), file)
        if size.unpacked_bytes > memory_limit():
            found, most = size.unpacked_bytes / 2**30, memory_limit() / 2**30
            raise DataError(f"unpacks to {found:,.1f} GiB; at most {most:,.1f} GiB are read on this machine", file=file)
        return source_rows.plain_texts(pl.read_parquet(path, glob=False, memory_map=False), file)
    except ValueError as exc:
        raise DataError(str(exc), file=file) from exc
    except OSError as exc:
        raise DataError(f"can't be read: {exc.strerror or exc}", file=file) from exc
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        raise DataError(f"can't be read as Parquet: {str(exc).splitlines()[0]}", file=file) from exc
