"""The package of a version: a folder whose files are all named, with their hashes, by its manifest.

    manifest.json     what it is; its SHA-256 is the version's `artifact`
    fairway.toml, contract.toml
    code/             model.py and the project's modules that it imports
    model/            the trained model, in the form of its runtime
    environment/      the project's lock files, where it has any
    reference.json    bins and reference windows of the monitor
    heldout.msgpack   up to 200 held-out rows with their events and the outputs that this package must give

Neither times nor run ids are in it: the same inputs give the same hash.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from fairway import fingerprint
from fairway.contract.settings import Task
from fairway.errors import StoreError, TamperFound

if TYPE_CHECKING:  # a model process opens packages without the store
    from fairway.store.workspace import Workspace

FORMAT = 1
MANIFEST = "manifest.json"
HELDOUT_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a package says of itself.

    classes: names in the order of the outputs' columns, the negative one first for binary; empty for regression.
    feature_columns: [name, Polars dtype] in the order that the model was trained with. views: name, source, entity,
    window_us and columns (name: dtype). runtime: kind, reason and candidates. files: relative path: SHA-256.
    """

    model: str
    task: Task
    positive: str | None
    classes: tuple[str, ...]
    feature_columns: tuple[tuple[str, str], ...]
    views: tuple[dict[str, Any], ...]
    contract: str
    runtime: dict[str, Any]
    environment: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode()


def read_manifest(data: bytes) -> Manifest:
    """Raises: StoreError for a newer format, TamperFound for bytes that are no manifest."""
    try:
        value = json.loads(data)
        if value["format"] > FORMAT:
            raise StoreError(f"the package has format {value['format']}; this fairway reads up to {FORMAT}")
        manifest: Manifest = msgspec.convert(value, Manifest)
    except (ValueError, KeyError, TypeError) as exc:
        raise TamperFound(f"{MANIFEST} of a package can't be read: {exc}") from exc
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or name == MANIFEST:
            raise TamperFound(f"{MANIFEST} names a file outside the package: {name!r}")
    return manifest


def build(
    folder: Path,
    manifest: Manifest,
    *,
    settings_toml: str,
    contract_toml: str,
    code: Mapping[str, bytes],
    model: Path,
    reference: Any,
    heldout: Mapping[str, Any],
    locks: Mapping[str, bytes] | None = None,
) -> str:
    """Write a package to the new `folder` and return its artifact hash.

    code: relative path: bytes. model: a folder whose files become model/. heldout: rows, events and outputs. locks: the
    project's lock files by name.
    """
    folder.mkdir(parents=True)
    (folder / "fairway.toml").write_text(settings_toml, encoding="utf-8")
    (folder / "contract.toml").write_text(contract_toml, encoding="utf-8")
    (folder / "reference.json").write_bytes(fingerprint.canonical(reference))
    (folder / "heldout.msgpack").write_bytes(msgspec.msgpack.encode(heldout))
    extra = {f"environment/{name}": data for name, data in (locks or {}).items()}
    for name, data in ({f"code/{name}": data for name, data in code.items()} | extra).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    shutil.copytree(model, folder / "model", dirs_exist_ok=True)
    files = {name: fingerprint.of_file(folder / name) for name in _names(folder)}
    data = Manifest(**{**_fields(manifest), "files": files}).to_bytes()
    (folder / MANIFEST).write_bytes(data)
    return fingerprint.of_bytes(data)


def store_package(workspace: "Workspace", folder: Path) -> str:
    """Put a built package among the blobs, file by file, the manifest last; returns its artifact hash."""
    manifest = verify(folder)
    for name in sorted(manifest.files):
        workspace.blobs.put_file(folder / name)
    return workspace.blobs.put((folder / MANIFEST).read_bytes())


def materialise(workspace: "Workspace", artifact: str) -> Path:
    """The package as a folder in `.fairway/cache/artifacts/`, made from the blobs if it is not there.

    Every file is verified on every call. Safe when several processes ask at once: the folder appears whole.
    Raises: TamperFound for a changed, missing or extra file; StoreError for a missing blob.
    """
    target = workspace.dir("cache") / "artifacts" / artifact
    if not target.exists():
        manifest = read_manifest(workspace.blobs.get(artifact))
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        try:
            for name, digest in manifest.files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                workspace.blobs.fetch(digest, path)
            (temporary / MANIFEST).write_bytes(workspace.blobs.get(artifact))
            temporary.rename(target)
        except OSError as exc:
            if not target.exists():
                raise StoreError(f"the package {artifact[:12]} can't be unpacked: {exc.strerror}") from exc
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    verify(target, artifact=artifact)
    return target


def verify(folder: Path, *, artifact: str | None = None) -> Manifest:
    """The manifest, when every file has the bytes that it names and there is no other file.

    Byte-code caches are removed first: nothing that was not packaged is ever imported.
    Raises: TamperFound, StoreError when there is no manifest.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as exc:
        raise StoreError(f"{folder} is no package: it has no {MANIFEST}") from exc
    if artifact is not None and fingerprint.of_bytes(data) != artifact:
        raise TamperFound(f"{MANIFEST} of package {artifact[:12]} was changed after it was registered")
    manifest = read_manifest(data)
    for cache in list((folder / "code").rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    names = set(_names(folder)) - {MANIFEST}
    for name in sorted(names | set(manifest.files)):
        if name not in manifest.files:
            raise TamperFound(f"{name} does not belong to this package")
        if name not in names:
            raise TamperFound(f"{name} is missing from its package")
        if fingerprint.of_file(folder / name) != manifest.files[name]:
            raise TamperFound(f"{name} was changed after it was registered")
    return manifest


def read_heldout(folder: Path) -> dict[str, Any]:
    """rows (request bodies' rows), events (per row: source -> event rows) and outputs; see `build`."""
    found: dict[str, Any] = msgspec.msgpack.decode((folder / "heldout.msgpack").read_bytes())
    return found


def _names(folder: Path) -> list[str]:
    found = []
    for parent, _, files in os.walk(folder, followlinks=False):
        for file in files:
            path = Path(parent) / file
            if path.is_symlink():
                raise TamperFound(f"{path.name} is a link; a package holds plain files")
            found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
