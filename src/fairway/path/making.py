"""What a run and its repetition do alike: the folder a training works in, and the package of what it made."""

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.data.identity import dataset_id, sorted_rows
from fairway.data.parts import store_dataset
from fairway.path.made import Made, Rows
from fairway.runtime import package
from fairway.store.workspace import Workspace
from fairway.training import work

SCRAPS = ("frame.arrow", "events", "code", "y.npy", "test.npy", work.PROGRESS)


def lay_out(
    folder: Path, rows: Rows, code: Mapping[str, bytes], settings: Settings, contract: Contract, *, seed: int,
    looked: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Write what `work.features_and_train` reads; returns its payload. looked: see there."""
    for name, text in code.items():
        (folder / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "code" / name).write_bytes(text)
    if looked is None:
        rows.frame.write_ipc(folder / "frame.arrow")
    (folder / "events").mkdir()
    for name, frame in rows.events.items():
        frame.write_ipc(folder / "events" / f"{name}.arrow")
    np.save(folder / "y.npy", rows.y)
    np.save(folder / "test.npy", rows.split.test)
    return work.write_values(settings, contract) | {
        "folder": str(folder), "classes": list(rows.classes), "seed": seed, "looked": looked,
    }  # fmt: skip


def tidy(folder: Path) -> None:
    """Remove what only the training read."""
    for scrap in SCRAPS:
        path = folder / scrap
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def build(
    folder: Path, made: Made, rows: Rows, code: Mapping[str, bytes], settings: Settings, contract: Contract, *,
    texts: tuple[str, str], environment: Mapping[str, Any], locks: Mapping[str, bytes], reference: Mapping[str, Any],
) -> str:  # fmt: skip
    """The package of what was made, in the new `folder`; returns its artifact hash. texts: both TOML files."""
    manifest = package.Manifest(
        model=settings.name, task=settings.task, positive=settings.positive, classes=rows.classes,
        feature_columns=tuple((name, dtype) for name, dtype in made.result["feature_columns"]),
        views=tuple(view | {"columns": made.result["schemas"][view["name"]]} for view in made.result["views"]),
        contract=contract.version, runtime=made.result["runtime"], environment=dict(environment),
    )  # fmt: skip
    heldout = msgspec.msgpack.decode((made.folder / "heldout.msgpack").read_bytes())
    return package.build(
        folder, manifest, settings_toml=texts[0], contract_toml=texts[1], code=code, model=made.folder / "model",
        reference=reference, heldout=heldout, locks=locks,
    )  # fmt: skip


def keep_events(
    workspace: Workspace, settings: Settings, events: Mapping[str, pl.DataFrame], *, now: datetime
) -> dict[str, str]:
    """Store each source's events as a dataset, so that the run can be repeated; returns their ids by source."""
    found = {}
    for name, frame in events.items():
        source = settings.sources[name]
        ordered = sorted_rows(frame, at=source.at, entity=source.key)
        found[name] = dataset_id(ordered, at=source.at, entity=source.key)
        origin = {"source": name, "model": settings.name}
        store_dataset(workspace, found[name], ordered, origin, now=now, at=source.at, entity=source.key)
    return found
