"""The files of a backup: written to a folder or a .tar file, and read back. Names are checked, bytes are hashed."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from fairway import clock, fingerprint
from fairway.errors import TamperFound, UsageError
from fairway.store.blobs import PIECE, is_digest, sync_folder

MANIFEST, STORE, ONLINE = "backup.json", "store.db", "online.db"
SECRETS = ("token", "keys")
_PLACES = (STORE, "blobs", "spool", "runs", ONLINE, *SECRETS)


class Target(Protocol):
    def add(self, name: str, file: IO[bytes], size_bytes: int) -> str:
        """Add a file; the SHA-256 of what was written."""
        ...

    def finish(self) -> None:
        """Make all of it durable."""
        ...

    def close(self) -> None:
        """Nothing more is added, for whatever reason."""
        ...


class Folder:
    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, exist_ok=True)  # predictions and their inputs are nobody else's business
        self._root = root
        self._folders = {root}

    def add(self, name: str, file: IO[bytes], size_bytes: int) -> str:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folders.update(parent for parent in path.parents if parent.is_relative_to(self._root))
        digest = hashlib.sha256()
        with path.open("xb") as into:
            while piece := file.read(PIECE):
                digest.update(piece)
                into.write(piece)
            into.flush()
            os.fsync(into.fileno())
        return digest.hexdigest()

    def finish(self) -> None:
        for folder in self._folders:
            sync_folder(folder)

    def close(self) -> None:
        """Nothing is open."""


class Tar:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._archive = tarfile.TarFile.open(fileobj=self._file, mode="w|", format=tarfile.PAX_FORMAT)

    def add(self, name: str, file: IO[bytes], size_bytes: int) -> str:
        info, reader = tarfile.TarInfo(name), Hashing(file)
        info.size, info.mode, info.mtime = size_bytes, 0o600, clock.to_us(clock.machine_now()) // 1_000_000
        self._archive.addfile(info, reader)
        return reader.digest.hexdigest()

    def finish(self) -> None:
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # a full disk; what was written is removed by the caller
            self._archive.close()
            self._file.close()


class Hashing:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def members(place: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_symlink():
                raise TamperFound(f"{path.relative_to(place)} in {place} is a link; a backup holds plain files")
            if path.is_file():
                with path.open("rb") as file:
                    yield path.relative_to(place).as_posix(), os.fstat(file.fileno()).st_size, file
        return
    try:
        with tarfile.open(place, "r|") as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is None:
                    raise TamperFound(f"{member.name!r} in {place} is no plain file")
                yield member.name, member.size, opened
    except tarfile.TarError as exc:
        raise UsageError(f"{place} is no backup: {exc}", field="backup") from exc


def check_name(name: str, place: Path) -> None:
    """Nothing from an archive becomes a path that a backup would not have. Raises: TamperFound."""
    path = PurePosixPath(name)
    bad = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts
    if bad or path.parts[0] not in _PLACES or (path.parts[0] == "blobs" and not is_digest(path.name)):
        raise TamperFound(f"{name!r} in {place} does not belong into a backup")


def blob_name(workspace: str, digest: str) -> str:
    return f"blobs/{workspace}/{digest[:2]}/{digest}"


def names_hash(digests: list[str]) -> str:
    return fingerprint.of_value(sorted(digests))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
