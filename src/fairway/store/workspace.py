"""A workspace: the folder that holds `.fairway/`, found upwards like git's, with its store and blobs.

Where they are is said by the environment, for every process of the workspace alike:

    FAIRWAY_STORE         postgresql://user@host/database; else .fairway/store.db (SQLite)
    FAIRWAY_BLOBS         s3://bucket/prefix, or the absolute path of a shared folder; else .fairway/blobs
    FAIRWAY_BLOBS_CACHE   megabytes of local copies of a bucket's blobs under .fairway/cache; 4096 unless told
    FAIRWAY_WORKSPACE     the workspace's name in the store and the blobs; "default" unless told
"""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa

from fairway.errors import UsageError
from fairway.store import schema
from fairway.store.base import Store
from fairway.store.blobs import Blobs, LocalBlobs, checked_name

FOLDER = ".fairway"
BLOBS_KEY = "blobs"  # of table meta: where a move has put them
EMBEDDED = "embedded"  # a file of this name in .fairway/: the environment's servers are not this workspace's


@dataclass(frozen=True)
class Workspace:
    """Paths and handles of one workspace. Cheap to make; the store opens when first used."""

    root: Path
    name: str = "default"

    def __post_init__(self) -> None:
        checked_name(self.name)

    @classmethod
    def find(cls, start: Path) -> "Workspace":
        """The nearest folder at or above `start` with a `.fairway/`. Raises: UsageError."""
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / FOLDER).is_dir():
                return cls(folder, os.environ.get("FAIRWAY_WORKSPACE", "default"))
        raise UsageError(f"no fairway workspace at or above {start}; start one with: fairway new NAME --data TABLE")

    @classmethod
    def create(cls, root: Path, *, embedded: bool = False) -> "Workspace":
        """The workspace at `root`, made if it is not there.

        embedded: its state is in its own folder whatever the environment says, in child processes too: for scratch
        workspaces, which must not write into the servers of the real one.
        """
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        if embedded:
            (root / FOLDER / EMBEDDED).touch()
        return cls(root.resolve(), os.environ.get("FAIRWAY_WORKSPACE", "default"))

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    @property
    def store_url(self) -> str:
        return self._setting("FAIRWAY_STORE") or embedded_store_url(self.root)

    @property
    def blobs_url(self) -> str:
        """s3://…, or the absolute path of a folder."""
        return self._setting("FAIRWAY_BLOBS") or embedded_blobs_url(self.root)

    @cached_property
    def store(self) -> Store:
        return Store(self.store_url, workspace=self.name)

    @cached_property
    def blobs(self) -> Blobs:
        """Raises: UsageError where the environment does not say that they were moved."""
        if self._setting("FAIRWAY_BLOBS") is None:
            table = schema.meta
            where = sa.and_(table.c.workspace == self.name, table.c.key == BLOBS_KEY)
            with self.store.read() as tx:
                moved = tx.scalar(sa.select(table.c.value).where(where))
            if moved:
                raise UsageError(
                    f"the blobs of this workspace are in {moved}: set FAIRWAY_BLOBS={moved}", field="FAIRWAY_BLOBS"
                )
        return self.blobs_at(self.blobs_url)

    def blobs_at(self, url: str) -> Blobs:
        """This workspace's blobs in another place. Raises: UsageError, MissingExtra."""
        if url.startswith("s3://"):
            from fairway.store.s3 import S3Blobs

            return S3Blobs(url, workspace=self.name, cache=self.dir("cache") / "blobs", cache_bytes=_cache_bytes())
        folder = Path(url.removeprefix("file://"))
        if "://" in url.removeprefix("file://") or not folder.is_absolute():
            raise UsageError(
                f"{url!r} is no place for blobs: write s3://bucket/prefix or an absolute path", field="FAIRWAY_BLOBS"
            )
        return LocalBlobs(folder, workspace=self.name)

    def _setting(self, variable: str) -> str | None:
        return None if (self.folder / EMBEDDED).exists() else os.environ.get(variable) or None

    def dir(self, name: str) -> Path:
        """`.fairway/<name>/`, made if needed: runs, cache, spool, log."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def sockets(self) -> Path:
        """Where this workspace's Unix sockets are: a short private path (a socket's name has at most 107 bytes)."""
        mark = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        path = Path(tempfile.gettempdir()) / f"fairway-{os.getuid()}-{mark}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def token(self) -> str:
        """The owner's token, made at first use in `.fairway/token` (0600)."""
        path = self.folder / "token"
        if not path.exists():
            temporary = path.with_name(f".token-{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write("fw_" + secrets.token_urlsafe(32))
            try:
                os.link(temporary, path)  # the first of two starts wins
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return path.read_text().strip()


def embedded_store_url(root: Path) -> str:
    return f"sqlite:///{root / FOLDER / 'store.db'}"


def embedded_blobs_url(root: Path) -> str:
    return str(root / FOLDER / "blobs")


def _cache_bytes() -> int:
    text = os.environ.get("FAIRWAY_BLOBS_CACHE", "4096")
    if not text.isdigit():
        raise UsageError(f"FAIRWAY_BLOBS_CACHE is {text!r}; write megabytes, such as 4096", field="FAIRWAY_BLOBS_CACHE")
    return int(text) * 1024 * 1024
