"""Runs in a child process: every check that needs code of the project, one after the other.

Each check is written to `results.jsonl` before it starts and when it ends, and has a time limit that works even inside
native code. So when the project's code hangs, exits or crashes, the parent knows in which check.
"""

import faulthandler
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fairway import clock
from fairway.checks import answers, extreme, requests, rowwise
from fairway.checks.loaded import Loaded
from fairway.checks.result import CheckResult, failed
from fairway.checks.subject import Material, Subject
from fairway.contract.request import compile_request
from fairway.training.trouble import sentence

LOADING = "package-load"
RESULTS, STACK, INPUT = "results.jsonl", "stack.txt", "input.json"
Check = Callable[[], CheckResult]


def run(payload: dict[str, Any]) -> None:
    """Entry point. payload: folder, package, checks (names), limit_s; see `write_material` for the folder."""
    folder = Path(payload["folder"])
    with (folder / RESULTS).open("a", encoding="utf-8") as out, (folder / STACK).open("w", encoding="utf-8") as stack:
        begin(out, LOADING)
        faulthandler.dump_traceback_later(payload["limit_s"], exit=True, file=stack)
        loading = clock.elapsed()
        try:
            subject = Loaded(Path(payload["package"]))
            material = read_material(folder, subject)
        except Exception as error:
            end(out, failed(LOADING, f"the package can't be loaded: {sentence(error)}"), loading)
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
        _line(out, {"begin": None})
        available = checks_of(subject, material, classes=len(subject.classes))
        for name in payload["checks"] or available:
            if name in available:
                begin(out, name)
                faulthandler.dump_traceback_later(payload["limit_s"], exit=True, file=stack)
                began = clock.elapsed()
                try:
                    result = available[name]()
                except Exception as error:  # whatever model.py raises is this check's finding
                    result = failed(name, sentence(error), error=repr(error))
                finally:
                    faulthandler.cancel_dump_traceback_later()
                end(out, result, began)


def names_for(contract: Any, settings: Any) -> list[str]:
    """The checks of the child, in order; known to the parent without loading anything of the project."""
    kinds = dict.fromkeys(
        c.type for c in contract.request_columns if c.role != "at" or settings.endpoint.at_from_caller
    )
    return [
        "package-reload", "native-runtime", "feature-schema", "row-wise-features", "views-point-in-time",
        "determinism-predict", "determinism-train", "column-order", "output-range", "latency-budget",
        *(f"extreme-{kind}" for kind in (*kinds, "row", "wire")),
    ]  # fmt: skip


def checks_of(subject: Subject, material: Material, *, classes: int) -> dict[str, Check]:
    """Every check of the child by name. Nothing runs before its name is called."""
    target, settings = subject.settings.target, subject.settings
    decode = compile_request(subject.contract, settings).decode
    extremes = extreme.draw(subject.contract, settings, list(material.request_rows), seed=material.seed)
    now_us = material.now_us

    def extreme_of(kind: str) -> Check:
        chosen = [e for e in extremes if e.kind == kind]
        return lambda: requests.extreme_check(subject, decode, chosen, kind, now_us=now_us, classes=classes)

    found: dict[str, Check] = {
        "package-reload": lambda: answers.package_reload(subject, material),
        "native-runtime": lambda: answers.native_runtime(subject, material),
        "feature-schema": lambda: answers.feature_schema(subject, material),
        "row-wise-features": lambda: rowwise.row_wise_features(subject, material),
        "views-point-in-time": lambda: rowwise.views_point_in_time(subject, material),
        "determinism-predict": lambda: answers.determinism_predict(subject, material),
        "determinism-train": lambda: answers.determinism_train(subject, material, target=target),
        "column-order": lambda: answers.column_order(subject, material),
        "output-range": lambda: answers.output_range(subject, material, classes=classes),
        "latency-budget": lambda: answers.latency_budget(
            subject, material, p99_s=settings.endpoint.p99.total_seconds(), one=_events_of_row(subject, material)
        ),
    }
    return {
        name: found.get(name) or extreme_of(name.removeprefix("extreme-"))
        for name in names_for(subject.contract, settings)
    }


def _events_of_row(subject: Subject, material: Material) -> Callable[[int], Mapping[str, pl.DataFrame]]:
    """Only a row's own events, as the online look-up brings them: finding them is not the model's time."""
    if not subject.views:
        return lambda row: {}
    return lambda row: rowwise.own_events(subject, material, material.heldout[[row]])


def begin(out: Any, name: str) -> None:
    _line(out, {"begin": name})


def end(out: Any, result: CheckResult, began: float) -> None:
    _line(out, {"result": result.as_dict() | {"seconds": clock.elapsed() - began}})


def _line(out: Any, value: dict[str, Any]) -> None:
    out.write(json.dumps(value, default=str) + "\n")
    out.flush()
    os.fsync(out.fileno())


def write_material(folder: Path, material: Material) -> None:
    """The material as files, typed; `read_material` is the inverse."""
    material.train.write_ipc(folder / "train.arrow")
    material.heldout.write_ipc(folder / "heldout.arrow")
    for source, events in material.events.items():
        (folder / "events").mkdir(exist_ok=True)
        events.write_ipc(folder / "events" / f"{source}.arrow")
    np.save(folder / "outputs.npy", material.python_outputs, allow_pickle=False)
    (folder / INPUT).write_text(
        json.dumps({"seed": material.seed, "now_us": material.now_us, "request_rows": list(material.request_rows),
                    "sources": list(material.events)})
    )  # fmt: skip


def read_material(folder: Path, subject: Subject) -> Material:
    """What `write_material` wrote."""
    values = json.loads((folder / INPUT).read_text())
    return Material(
        train=pl.read_ipc(folder / "train.arrow"),
        heldout=pl.read_ipc(folder / "heldout.arrow"),
        events={s: pl.read_ipc(folder / "events" / f"{s}.arrow") for s in values["sources"]},
        python_outputs=np.load(folder / "outputs.npy", allow_pickle=False),
        request_rows=values["request_rows"],
        now_us=values["now_us"],
        seed=values["seed"],
    )
