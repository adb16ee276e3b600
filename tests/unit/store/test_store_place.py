"""Where an embedded store must not lie: network file systems and folders that something synchronises."""

from pathlib import Path

import pytest

from fairway.store.place import Mount, warning

HERE = [Mount(Path("/"), "ext4"), Mount(Path("/mnt/team"), "nfs4"), Mount(Path("/mnt/team/local"), "xfs")]


def mounted(kind: str) -> list[Mount]:
    return [Mount(Path("/"), "overlay"), Mount(Path("/data"), kind)]


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "ceph"])
def test_network_file_systems_are_named(kind: str) -> None:
    said = warning(Path("/data/ws/.fairway"), mounts=mounted(kind))
    assert said is not None and kind in said and "/data" in said


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "apfs", "zfs", "fuseblk"])
def test_disks_are_fine(kind: str) -> None:
    assert warning(Path("/data/ws/.fairway"), mounts=mounted(kind)) is None


def test_the_nearest_mount_counts() -> None:
    assert warning(Path("/mnt/team/ws"), mounts=HERE) is not None
    assert warning(Path("/mnt/team/local/ws"), mounts=HERE) is None
    assert warning(Path("/mnt/teams/ws"), mounts=HERE) is None


@pytest.mark.parametrize(
    ("folder", "by"),
    [("Dropbox", "Dropbox"), ("OneDrive - Acme", "OneDrive"), ("Nextcloud", "Nextcloud"),
     ("Library/Mobile Documents/x", "iCloud Drive")],
)  # fmt: skip
def test_synced_folders_are_named(folder: str, by: str, tmp_path: Path) -> None:
    said = warning(tmp_path / folder / "ws" / ".fairway", mounts=[])
    assert said is not None and by in said
    assert warning(tmp_path / "dropboxes" / "ws", mounts=[]) is None


def test_a_sync_program_is_known_by_its_mark_and_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared" / ".stfolder").mkdir(parents=True)
    (tmp_path / "ws").symlink_to(tmp_path / "shared", target_is_directory=True)
    said = warning(tmp_path / "ws" / ".fairway", mounts=[])
    assert said is not None and "Syncthing" in said


def test_this_machine_has_mounts_that_can_be_read(tmp_path: Path) -> None:
    said = warning(tmp_path)
    assert said is None or "network" in said or "synchronises" in said
