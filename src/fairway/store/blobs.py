"""Blobs: immutable bytes under the hash of their content, in a folder or (store.s3) in a bucket."""

import errno
import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from fairway import clock, fingerprint
from fairway.errors import StoreError, StoreReadOnly, StoreUnavailable, TamperFound, UsageError

PAGE = 1000
PIECE = 1024 * 1024  # bytes read at a time
_AT_ONCE = 8  # fetches: most of each is waiting
GRACE = timedelta(hours=24)  # a blob put so lately may be about to be named by a row: nothing may collect it
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class BlobEntry:
    """One blob of a listing. stored_at: when it was last put, by the clock of where it lies (never a virtual one)."""

    digest: str
    size_bytes: int
    stored_at: datetime


class Blobs(Protocol):
    """Bytes by SHA-256, of one workspace. Nothing is ever changed in place; safe for threads and processes.

    A blob is whole or not there: `put` returns when it is durable, and a put that was killed leaves nothing with a
    name. Putting the same bytes again is harmless and renews `stored_at`; whoever collects what no row names must leave
    blobs younger than GRACE alone, since their row may be about to come.
    Raises, everywhere: StoreError for a digest that is none, StoreUnavailable when the place can't be reached, is full
    or denies access (what was there stays; the same again may succeed).
    """

    @property
    def where(self) -> str:
        """The place, as a person would name it: a folder, or s3://bucket/prefix."""
        ...

    @property
    def remote(self) -> bool:
        """Whether every call may wait for a network: then none belongs inside a transaction."""
        ...

    def put(self, data: bytes) -> str:
        """Store, durably, and return the hash."""
        ...

    def put_file(self, path: Path) -> str:
        """As `put`, read in pieces. The hash is that of what was stored, also when the file changes meanwhile."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises: StoreError if it is not there, TamperFound if its bytes don't hash to `digest`."""
        ...

    def path(self, digest: str) -> Path:
        """A local file with the blob's bytes, for readers that map or scan. Read only; open it soon.

        A folder's own file is not verified; a bucket's is a copy that was verified when it was fetched.
        Raises: StoreError if it is not there.
        """
        ...

    def open(self, digest: str) -> BufferedReader:
        """The file of `path`, open for reading: it stays readable when the blob is deleted meanwhile."""
        ...

    def fetch(self, digest: str, target: Path) -> int:
        """Write the blob to the new file `target`, verified and past any cache; its size.

        Raises: StoreError if it is not there, TamperFound; then there is no `target`.
        """
        ...

    def size(self, digest: str) -> int:
        """Bytes. Raises: StoreError if it is not there."""
        ...

    def verify(self, digest: str) -> int:
        """Read the blob where it lies (no cache) against its hash; its size. Raises: StoreError, TamperFound."""
        ...

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        """Remove; with `before`, only when it was last put before then. False: there was nothing to remove."""
        ...

    def pages(self, *, size: int = PAGE, after: str = "") -> Iterator[list[BlobEntry]]:
        """All blobs in the order of their digests, from the first one greater than `after`."""
        ...

    def sweep(self, before: datetime) -> int:
        """Remove what killed puts left before then (it has no name and is in no listing); how many pieces."""
        ...

    def __contains__(self, digest: str) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


def checked_name(workspace: str) -> str:
    """A workspace's name, fit to be part of a path. Raises: UsageError."""
    if _NAME.fullmatch(workspace) is None:
        raise UsageError(
            f"{workspace!r} can't name a workspace: 1 to 64 of a-z, 0-9, '.', '_', '-', first a letter or digit",
            field="FAIRWAY_WORKSPACE",
        )
    return workspace


def checked(digest: str) -> str:
    """No text that a user wrote becomes a path. Raises: StoreError."""
    if _DIGEST.fullmatch(digest) is None:
        raise StoreError(f"{digest[:80]!r} is no blob's hash: 64 hex digits")
    return digest


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def changed(digest: str, where: str) -> TamperFound:
    return TamperFound(f"blob {digest[:12]} in {where} was changed after it was stored: its bytes have another hash")


def missing(digest: str, where: str) -> StoreError:
    return StoreError(f"blob {digest[:12]} is missing from {where}")


def trouble(error: OSError, what: str) -> StoreError:
    """What a failed write to a disk means. `what`: "blob ab12… can't be written to /…"."""
    if error.errno in _FULL:
        return StoreUnavailable(f"{what}: the disk or quota is full; nothing was kept, make space and try again")
    if error.errno in _READ_ONLY:
        return StoreReadOnly(f"{what}: {error.strerror}; it can be read, and not written")
    return StoreUnavailable(f"{what}: {error.strerror or error}; nothing was kept")


class LocalBlobs:
    """`root`/<workspace>/ab/abcdef…; written beside and renamed, file and folder synced before `put` returns."""

    remote = False

    def __init__(self, root: Path, *, workspace: str = "default") -> None:
        self.root = root / checked_name(workspace)

    @property
    def where(self) -> str:
        return str(self.root.parent)

    def put(self, data: bytes) -> str:
        digest = fingerprint.of_bytes(data)
        if not self._renewed(digest, len(data)):
            self._write(iter((data,)), digest[:12])
        return digest

    def put_file(self, path: Path) -> str:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if self._renewed(digest, os.fstat(file.fileno()).st_size):
                return digest
            file.seek(0)
            return self._write(pieces(file), path.name)

    def get(self, digest: str) -> bytes:
        with self.open(digest) as file:
            data = file.read()
        if fingerprint.of_bytes(data) != digest:
            raise changed(digest, self.where)
        return data

    def path(self, digest: str) -> Path:
        path = self._place(digest)
        if not path.exists():
            raise missing(digest, self.where)
        return path

    def open(self, digest: str) -> BufferedReader:
        try:
            return self._place(digest).open("rb")
        except FileNotFoundError as exc:
            raise missing(digest, self.where) from exc
        except OSError as exc:
            raise StoreError(f"blob {digest[:12]} can't be read from {self.where}: {exc.strerror}") from exc

    def fetch(self, digest: str, target: Path) -> int:
        with self.open(digest) as file:
            return write_verified(target, pieces(file), digest, self.where)

    def size(self, digest: str) -> int:
        with self.open(digest) as file:
            return os.fstat(file.fileno()).st_size

    def verify(self, digest: str) -> int:
        with self.open(digest) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise changed(digest, self.where)
            return os.fstat(file.fileno()).st_size

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        path = self._place(digest)
        try:
            with self._locked(fcntl.LOCK_EX):  # no put is between "it is there already" and counting on it
                if before is not None and _at(path.stat().st_mtime_ns) >= before:
                    return False
                path.unlink()
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise trouble(exc, f"blob {digest[:12]} can't be deleted from {self.where}") from exc
        return True

    def pages(self, *, size: int = PAGE, after: str = "") -> Iterator[list[BlobEntry]]:
        page: list[BlobEntry] = []
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            if folder.name < after[:2]:
                continue
            for path in sorted(folder.iterdir()):
                if not is_digest(path.name) or path.name <= after:
                    continue
                with suppress(FileNotFoundError):  # deleted while we list
                    stat = path.stat()
                    page.append(BlobEntry(path.name, stat.st_size, _at(stat.st_mtime_ns)))
                if len(page) >= size:
                    yield page
                    page = []
        if page:
            yield page

    def sweep(self, before: datetime) -> int:
        return sweep_files(self.root, before)

    def __contains__(self, digest: str) -> bool:
        return self._place(digest).exists()

    def __iter__(self) -> Iterator[str]:
        return (entry.digest for page in self.pages() for entry in page)

    def _place(self, digest: str) -> Path:
        return self.root / checked(digest)[:2] / digest

    def _renewed(self, digest: str, size_bytes: int) -> bool:
        """Whether it is there already; then it counts as put now. One of another size is damaged, and written anew."""
        path = self._place(digest)
        try:
            if path.stat().st_size != size_bytes:
                return False
            # Of another owner, or (OSError EROFS below) in a read-only place: what is there stays.
            with suppress(PermissionError), self._locked(fcntl.LOCK_SH):
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError as exc:
            if exc.errno != errno.EROFS:
                raise trouble(exc, f"blob {digest[:12]} in {self.where}") from exc
        return True

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _write(self, data: Iterator[bytes], what: str) -> str:
        temporary = self.root / f".put-{uuid.uuid4().hex}"
        try:
            try:
                made = not self.root.exists()
                self.root.mkdir(parents=True, exist_ok=True)
                if made:
                    sync_folder(self.root.parent)
                digest = write_synced(temporary, data)
                target = self._place(digest)
                if not target.parent.exists():
                    target.parent.mkdir(exist_ok=True)
                    sync_folder(self.root)
                temporary.rename(target)
                sync_folder(target.parent)
            except OSError as exc:
                raise trouble(exc, f"blob {what} can't be written to {self.where}") from exc
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return digest


def pieces(file: BufferedReader) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def write_synced(path: Path, data: Iterator[bytes]) -> str:
    """Write a new file, synced to the disk; the hash of what was written."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in data:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def write_verified(target: Path, data: Iterator[bytes], digest: str, where: str) -> int:
    """As `write_synced`, for a blob's bytes; the size. Raises: TamperFound, StoreError, what `data` raises."""
    try:
        try:
            if write_synced(target, data) != digest:
                raise changed(digest, where)
            return target.stat().st_size
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    except OSError as exc:
        if exc.errno is None:  # of a network
            raise
        raise trouble(exc, f"blob {digest[:12]} can't be written to {target}") from exc


@contextmanager
def borrowed(blobs: Blobs, digests: Sequence[str], folder: Path) -> Iterator[list[Path | None]]:
    """Local files with these blobs' bytes: their own where they lie in a folder (not verified), else fetched copies.

    folder: where the copies lie meanwhile. None: that blob is not there. Raises: TamperFound, StoreError.
    """

    def one(digest: str) -> Path | None:
        try:
            if not blobs.remote:
                return blobs.path(digest)
            blobs.fetch(digest, folder / digest)
        except (TamperFound, StoreUnavailable):
            raise
        except StoreError:
            return None
        return folder / digest

    try:
        with ThreadPoolExecutor(_AT_ONCE if blobs.remote else 1) as pool:
            found = list(pool.map(one, digests))
        yield found
    finally:
        if blobs.remote:
            for digest in digests:
                (folder / digest).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_files(root: Path, before: datetime) -> int:
    """Remove `.put-…` files (and those of fairway 0.1, one level down) last written before then."""
    count = 0
    for pattern in (".put-*", "??/.*"):
        for path in root.glob(pattern):
            with suppress(FileNotFoundError):
                if _at(path.stat().st_mtime_ns) < before:
                    path.unlink()
                    count += 1
    return count


def _at(mtime_ns: int) -> datetime:
    return clock.from_us(mtime_ns // 1000)
