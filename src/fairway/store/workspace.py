"""A workspace: the folder that holds `.fairway/`, found upwards like git's, with its store and blobs."""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fairway.errors import UsageError
from fairway.store.base import Store
from fairway.store.blobs import Blobs, LocalBlobs

FOLDER = ".fairway"


@dataclass(frozen=True)
class Workspace:
    """Paths and handles of one workspace. Cheap to make; the store opens when first used."""

    root: Path
    name: str = "default"

    @classmethod
    def find(cls, start: Path) -> "Workspace":
        """The nearest folder at or above `start` with a `.fairway/`. Raises: UsageError."""
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / FOLDER).is_dir():
                return cls(folder, os.environ.get("FAIRWAY_WORKSPACE", "default"))
        raise UsageError(f"no fairway workspace at or above {start}; start one with: fairway new NAME --data TABLE")

    @classmethod
    def create(cls, root: Path) -> "Workspace":
        """The workspace at `root`, made if it is not there."""
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        return cls(root.resolve(), os.environ.get("FAIRWAY_WORKSPACE", "default"))

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    @cached_property
    def store(self) -> Store:
        url = os.environ.get("FAIRWAY_STORE") or f"sqlite:///{self.folder / 'store.db'}"
        return Store(url, workspace=self.name)

    @cached_property
    def blobs(self) -> Blobs:
        return LocalBlobs(self.folder / "blobs", workspace=self.name)

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
