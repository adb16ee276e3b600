"""Blobs: immutable bytes under the hash of their content, in a folder (or, later, a bucket)."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from fairway import fingerprint
from fairway.errors import StoreError, TamperFound


class Blobs(Protocol):
    """Bytes by SHA-256. Putting the same bytes twice is harmless; nothing is ever changed in place."""

    def put(self, data: bytes) -> str:
        """Store, durably, and return the hash."""
        ...

    def put_file(self, path: Path) -> str: ...

    def get(self, digest: str) -> bytes:
        """Raises: StoreError if it is not there, TamperFound if its bytes don't hash to `digest`."""
        ...

    def path(self, digest: str) -> Path:
        """A local file with the blob's bytes, unverified; for readers that map or scan (Parquet)."""
        ...

    def __contains__(self, digest: str) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


class LocalBlobs:
    """`root`/<workspace>/ab/abcdef…; written beside and renamed, so that nothing half-written has a name."""

    def __init__(self, root: Path, *, workspace: str = "default") -> None:
        self.root = root / workspace

    def put(self, data: bytes) -> str:
        digest = fingerprint.of_bytes(data)
        target = self.path(digest)
        if target.exists():
            return digest
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
        except OSError as exc:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"blob {digest[:12]} can't be written: {exc.strerror}") from exc
        return digest

    def put_file(self, path: Path) -> str:
        return self.put(path.read_bytes())

    def get(self, digest: str) -> bytes:
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as exc:
            raise StoreError(f"blob {digest[:12]} is missing from {self.root}") from exc
        if fingerprint.of_bytes(data) != digest:
            raise TamperFound(f"blob {digest[:12]} was changed after it was stored")
        return data

    def path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).exists()

    def __iter__(self) -> Iterator[str]:
        return (p.name for p in self.root.glob("??/*") if not p.name.startswith("."))
