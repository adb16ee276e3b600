"""Local copies of a bucket's blobs: verified when they come, bounded in size, safe to delete by hand."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from fairway import clock, fingerprint
from fairway.store.blobs import changed, sweep_files, sync_folder, trouble, write_synced

IN_USE = timedelta(minutes=10)  # a file that was asked for so lately is not removed: its reader may be about to open it


class BlobCache:
    """Files under `root` by hash, shared by processes; each of them looks at a file's bytes once more itself."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        """limit_bytes: may be passed by what was asked for within IN_USE, and by an eighth between two looks."""
        self.root, self._limit = root, limit_bytes
        self._seen: dict[str, tuple[int, int, int]] = {}  # digest -> (inode, size, mtime) that this process verified
        self._added = 0

    def find(self, digest: str) -> Path | None:
        path = self._place(digest)
        try:
            if self._seen.get(digest) != _mark(path):
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        self.drop(digest)
                        return None
                self._seen[digest] = _mark(path)
            _used(path)
        except OSError:
            return None
        return path

    def read(self, digest: str) -> bytes | None:
        path = self._place(digest)
        try:
            data = path.read_bytes()
            if fingerprint.of_bytes(data) == digest:
                _used(path)
                return data
        except OSError:
            return None
        self.drop(digest)
        return None

    def keep(self, digest: str, data: Iterator[bytes]) -> Path:
        """Raises: TamperFound for other bytes, StoreError for a disk that takes no more; what `data` raises."""
        target, temporary = self._place(digest), self.root / f".put-{uuid.uuid4().hex}"
        try:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise trouble(exc, f"the cache {self.root} can't be written") from exc
            try:
                if write_synced(temporary, data) != digest:
                    raise changed(digest, "the bucket")
                size_bytes = temporary.stat().st_size
                temporary.rename(target)
                sync_folder(target.parent)
                self._seen[digest] = _mark(target)
            except OSError as exc:
                if exc.errno is None:  # of the network
                    raise
                raise trouble(exc, f"the cache {self.root} can't be written") from exc
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._added += size_bytes
        if self._added > self._limit // 8:
            self._shrink()
        return target

    def sweep(self, before: datetime) -> int:
        return sweep_files(self.root, before)

    def drop(self, digest: str) -> None:
        self._seen.pop(digest, None)
        with suppress(OSError):
            self._place(digest).unlink(missing_ok=True)

    def _shrink(self) -> None:
        """Down to the limit, longest unused first; what was asked for within IN_USE stays."""
        self._added = 0
        found = []
        for path in self.root.glob("??/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_atime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        unused_ns = _ns(clock.machine_now() - IN_USE)
        for used_ns, size, path in sorted(found):
            if total <= self._limit or used_ns > unused_ns:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _place(self, digest: str) -> Path:
        return self.root / digest[:2] / digest


def _used(path: Path) -> None:
    """Note that a file was asked for; when it was written stays."""
    os.utime(path, ns=(_ns(clock.machine_now()), path.stat().st_mtime_ns))


def _ns(at: datetime) -> int:
    return clock.to_us(at) * 1000


def _mark(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
