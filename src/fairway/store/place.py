"""Whether a folder is a safe place for an SQLite store: file locks and syncs must mean what they say there."""

import os
from dataclasses import dataclass
from pathlib import Path

_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "davfs",
)
_FUSE_SAFE = ("fuse.lxcfs", "fuseblk", "fuse.overlayfs", "fuse.fuse-overlayfs")  # disks of this machine
_SYNCED = {
    "dropbox": "Dropbox",
    "onedrive": "OneDrive",
    "google drive": "Google Drive",
    "googledrive": "Google Drive",
    "mobile documents": "iCloud Drive",
    "nextcloud": "Nextcloud",
    "owncloud": "ownCloud",
    "pcloud drive": "pCloud",
}
_MARKS = {".stfolder": "Syncthing", ".dropbox": "Dropbox", ".dropbox.cache": "Dropbox", ".sync": "Resilio Sync"}


@dataclass(frozen=True)
class Mount:
    """One line of the system's table of mounts."""

    at: Path
    kind: str


def warning(folder: Path, *, mounts: list[Mount] | None = None) -> str | None:
    """What is wrong with keeping the embedded store in `folder`, in one sentence; None when nothing is known to be.

    mounts: by default those of this machine (Linux; elsewhere only synced folders are found).
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - a link may lead out of a synced folder: both are looked at
    for path in dict.fromkeys((place, place.resolve())):
        mount = _mount_of(path, _mounts() if mounts is None else mounts)
        if mount is not None and _is_network(mount.kind):
            return (
                f"{folder} is on {mount.at} ({mount.kind}), a network file system: SQLite can't trust locks and syncs "
                "there, and may lose or corrupt the store"
            )
        by = _synced_by(path)
        if by is not None:
            return (
                f"{folder} is in a folder that {by} synchronises: a copy of a store that is being written is broken, "
                "and two machines overwrite each other's"
            )
    return None


def _is_network(kind: str) -> bool:
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _FUSE_SAFE)


def _mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    above = [mount for mount in mounts if path.is_relative_to(mount.at)]
    return max(above, key=lambda mount: len(mount.at.parts), default=None)


def _mounts() -> list[Mount]:
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return []
    parts = [line.split(" ") for line in lines]
    return [Mount(Path(_plain(part[1])), part[2]) for part in parts if len(part) > 2]


def _plain(text: str) -> str:
    for octal, sign in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        text = text.replace(octal, sign)
    return text


def _synced_by(path: Path) -> str | None:
    for folder in (path, *path.parents):
        name = folder.name.lower()
        for start, by in _SYNCED.items():
            if name == start or name.startswith((f"{start} ", f"{start}-")):
                return by
        for mark, by in _MARKS.items():
            if (folder / mark).exists():
                return by
    return None
