"""`fairway check --study`: what the data themselves could do better, asked of the project's own model.

Labels that are probably wrong, what more rows would bring, and which rows are worth a label next. It trains the model
about twenty times, so it is asked for, and registers nothing.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.contract.settings import Settings
from fairway.data.project import Project
from fairway.data.snapshot import snapshot, source_events
from fairway.data.unlabelled import WHERE, unlabelled_rows
from fairway.errors import DataError
from fairway.path.split import MIN_ROWS, split
from fairway.path.steps import Steps
from fairway.runtime.closure import closure
from fairway.stats import curve, noise
from fairway.training import study, work
from fairway.training.child import limits_of, run_child
from fairway.training.metrics import PRIMARY_LOSS
from fairway.training.targets import encode

Array = NDArray[Any]

LISTED = 20  # rows of each kind
BUDGET_S = 300.0  # of the learning curve; the repeats that were done by then count
_NAMING = 3  # columns that name a row at most
_TRIED = 30  # columns that are tried for it
_WIDE = 60  # characters of one of them on the terminal
MOST_ROWS = 50_000  # more take longer and say nothing new about a share; for the curve all sizes lie below


@dataclass(frozen=True, kw_only=True)
class Study:
    """labels: suspects, counts, estimated share. sufficiency: sizes, losses and the forecast for twice the rows, or why
    there is none. next_labels: rows worth a label. Each row has how to find it, and its values.
    """

    model: str
    rows: int
    loss: str
    labels: Mapping[str, Any]
    sufficiency: Mapping[str, Any]
    next_labels: Mapping[str, Any]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dict(vars(self))


def study_data(project: Project, *, seed: int = 0, now: datetime | None = None) -> Study:
    """Raises: DataError with fewer than 20 rows; ModelCodeError; as `snapshot`."""
    begun, at = clock.elapsed(), now or clock.now()
    settings, contract = project.settings, project.contract
    frame = snapshot(project, now=at).frame
    if frame.height < MIN_ROWS:
        raise DataError(f"the table has {frame.height} rows with a known answer; a study needs at least {MIN_ROWS}")
    if frame.height > MOST_ROWS:
        frame = frame[np.sort(np.random.default_rng(seed).choice(frame.height, MOST_ROWS, replace=False))]
    target = contract.column(settings.target)
    series, classes = encode(frame[target.name], target, settings)
    y, test = series.to_numpy(), split(frame, settings).test
    waiting = unlabelled_rows(project, until=at)
    loss = settings.rollout.primary or PRIMARY_LOSS[settings.task]
    folder = Steps(project.workspace, lambda line: None).new_folder()
    try:
        frame.write_ipc(folder / "frame.arrow")
        if waiting.height:
            waiting.drop(WHERE).write_ipc(folder / "open.arrow")
        (folder / "events").mkdir()
        for name in settings.sources:
            source_events(project, name, now=at).write_ipc(folder / "events" / f"{name}.arrow")
        for name, text in closure(project.root).items():
            (folder / "code" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "code" / name).write_bytes(text)
        for name, array in (("y", y), ("test", test), ("fold", folds(frame, settings.entity, y, classes, seed))):
            np.save(folder / f"{name}.npy", array)
        payload = work.write_values(settings, contract) | {
            "folder": str(folder), "classes": list(classes), "seed": seed, "loss": loss, "budget_s": BUDGET_S,
        }  # fmt: skip
        log = project.workspace.dir("runs") / "study.log"
        found = run_child(study.ENTRY, payload, limits_of(settings), cwd=project.root, log=log)
        outputs = np.load(folder / "outputs.npy", allow_pickle=False)
        answers = np.load(folder / "open.npy", allow_pickle=False) if waiting.height else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Study(
        model=settings.name, rows=frame.height, loss=loss,
        labels=_labels(frame, y, outputs, classes, target.name, named_by=_named_by(frame, settings)),
        sufficiency=_sufficiency(found, int((~test).sum()), seed),
        next_labels=_next(waiting, answers, settings.task, classes), seconds=clock.elapsed() - begun,
    )  # fmt: skip


def folds(frame: pl.DataFrame, entity: str | None, y: Array, classes: tuple[str, ...], seed: int) -> Array:
    """(n,) fold numbers. Rows of one entity share a fold; without an entity, classes are spread evenly."""
    n, k = frame.height, study.FOLDS
    if entity is not None and frame[entity].n_unique() < n:
        place = {
            key: int.from_bytes(hashlib.sha256(f"{seed}\x1f{key}".encode()).digest()[:8]) % k
            for key in frame[entity].cast(pl.String).unique().to_list()
        }
        found = np.array([place[key] for key in frame[entity].cast(pl.String).to_list()])
        if len(np.unique(found)) == k:
            return found
    order = np.random.default_rng(seed).permutation(n)
    if classes:
        order = order[np.argsort(y[order], kind="stable")]
    found = np.empty(n, dtype=np.int64)
    found[order] = np.arange(n) % k
    return found


def _named_by(frame: pl.DataFrame, settings: Settings) -> list[str]:
    """Columns that a person finds a row again by: entity and time, and what else it takes to tell the rows apart."""
    names = [name for name in (settings.entity, settings.at) if name is not None]
    others = [n for n, t in frame.schema.items() if n not in (*names, settings.target) and not t.is_nested()]
    apart = frame.select(names).n_unique() if names else 0
    while others and len(names) < _NAMING and apart < frame.height:
        found = {name: frame.select(*names, name).n_unique() for name in others[:_TRIED]}
        best = max(found, key=lambda name: found[name])
        if found[best] <= apart:
            break
        names, apart = [*names, best], found[best]
        others.remove(best)
    return names


def _labels(
    frame: pl.DataFrame, y: Array, outputs: Array, classes: tuple[str, ...], target: str, *, named_by: list[str]
) -> dict[str, Any]:
    if not classes:
        suspects, scaled = noise.residual_outliers(y, outputs)
        rows = [
            _row(frame, int(i), given=float(y[i]), expected=round(float(outputs[i]), 6),
                 spreads=round(float(scaled[i]), 1))
            for i in suspects[:LISTED]
        ]  # fmt: skip
        return {"kind": "residuals", "suspects": len(suspects), "rows": rows, "target": target,
                "named_by": named_by}  # fmt: skip
    p = outputs if outputs.ndim == 2 else np.column_stack([1 - outputs, outputs])
    found = noise.confident_learning(y, p)
    rows = [
        _row(frame, int(i), given=classes[y[i]], expected=classes[found.suggested[i]],
             probability=round(float(p[i, found.suggested[i]]), 4))
        for i in found.suspects[:LISTED]
    ]  # fmt: skip
    return {"kind": "classes", "suspects": len(found.suspects), "share": found.share, "rows": rows, "target": target,
            "joint": found.joint.round(1).tolist(), "classes": list(classes),
            "named_by": named_by}  # fmt: skip


def _row(frame: pl.DataFrame, place: int, **facts: Any) -> dict[str, Any]:
    return {**facts, "values": {name: _plain(value) for name, value in frame.row(place, named=True).items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list):
        return f"{len(value)} numbers"
    if isinstance(value, datetime):
        return clock.iso(value)
    return value if isinstance(value, int | float | bool | None) else str(value)


def _sufficiency(found: Mapping[str, Any], n_train: int, seed: int) -> dict[str, Any]:
    sizes, losses = found["sizes"], np.array(found["losses"], dtype=np.float64)
    told: dict[str, Any] = {"sizes": sizes, "losses": losses.mean(axis=1).tolist() if losses.size else []}
    if len(sizes) < 3 or losses.ndim != 2 or losses.shape[1] < 2:
        why = f"{n_train:,} training rows are too few for a curve" if len(sizes) < 3 else "training takes too long"
        return told | {"forecast": None, "why": why}
    made = curve.forecast(sizes, losses, now=n_train, then=2 * n_train, seed=seed)
    return told | {"forecast": vars(made) | {"shown": made.shown}, "why": None}


def _next(waiting: pl.DataFrame, answers: Array | None, task: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """Where models of other folds disagree, or are unsure: those labels teach most. Equal inputs are listed once."""
    if answers is None:
        return {"waiting": 0, "rows": []}
    if task == "regression":
        score = answers.std(axis=0)
    else:
        p = answers.mean(axis=0)
        p = p if p.ndim == 2 else np.column_stack([1 - p, p])
        top = np.sort(p, axis=1)
        score = 1.0 - (top[:, -1] - top[:, -2])
    order = np.argsort(-score, kind="stable")
    frame = waiting.with_columns(pl.Series("_score", score))[order]
    frame = frame.unique([n for n in waiting.columns if n != WHERE], keep="first", maintain_order=True).head(LISTED)
    rows = [
        {
            "where": row.pop(WHERE),
            "score": round(row.pop("_score"), 4),
            "values": {k: _plain(v) for k, v in row.items()},
        }
        for row in frame.to_dicts()
    ]
    measure = "disagreement of the folds' models" if task == "regression" else "1 - margin between the two likeliest"
    return {"waiting": waiting.height, "measure": measure, "rows": rows}


def lines(found: Study) -> Sequence[str]:
    """What the terminal shows."""
    told = [f"{found.model}: a study of {found.rows:,} rows with a known answer ({found.seconds:.0f} s)", ""]
    labels, more, open_rows = found.labels, found.sufficiency, found.next_labels
    few = [(_named(row, labels["named_by"]), row) for row in labels["rows"][:5]]
    if labels["kind"] == "classes":
        share = f"by it, about {labels['share']:.1%} of all rows have another answer"
        told.append(f"  labels       {labels['suspects']:,} rows look wrong to the model; {share}")
        told += [
            f"               {name}   says {row['given']}, looks like {row['expected']} {row['probability']:.2f}"
            for name, row in few
        ]
    else:
        told.append(
            f"  labels       {labels['suspects']:,} rows lie more than 6 robust deviations from what is expected"
        )
        told += [
            f"               {name}   says {row['given']:g}, expected about {row['expected']:.4g}" for name, row in few
        ]
    forecast = more["forecast"]
    if forecast is None:
        told.append(f"  more rows    not told: {more['why']}")
    else:
        gain = f"{forecast['gain']:.4f} ({forecast['low']:.4f} to {forecast['high']:.4f})"
        verdict = "would help" if forecast["shown"] else "are not shown to help"
        told.append(
            f"  more rows    twice the rows {verdict}: {found.loss} falls by about {gain}, to {forecast['loss']:.4f}"
        )
    if open_rows["waiting"]:
        told.append(f"  label next   of {open_rows['waiting']:,} rows without a label, by {open_rows['measure']}:")
        told += [f"               {row['where']}   {row['score']:.3f}" for row in open_rows["rows"][:5]]
    else:
        told.append("  label next   no row without a label: neither in the table nor in the log")
    told += [
        "",
        "Candidates to look at, not rows to drop: what a model can't know looks wrong to it too. --json has them all.",
    ]
    return told


def _named(row: Mapping[str, Any], names: Sequence[str]) -> str:
    said = [f"{name} {row['values'][name]}" for name in names]
    return ", ".join(text if len(text) <= _WIDE else text[: _WIDE - 1] + "…" for text in said)
