"""Which columns may be known only after the prediction: hints, never proof. They are left out until a person says."""

import math
import re
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.columns import Column

AUC_SUSPECT = 0.85
RANK_SUSPECT = 0.95  # |Spearman| with a numeric target
_SAMPLE = 50_000
_FOLDS = 5
_MIN_NULLS = 5
WORDLESS = ("string", "text", "vector", "image")  # what such a column alone tells needs a model of its own
_NO_CHANCE = 50.0  # nats
_WORDS = {
    "actual", "actually", "arr", "arrival", "arrived", "delay", "delayed", "result", "results", "outcome", "label",
    "after", "final", "resolved", "resolution", "closed", "cancelled", "canceled", "refunded", "elapsed",
}  # fmt: skip
_PAIRS = (("dep", "time"), ("air", "time"), ("end", "time"), ("ended", "at"), ("closed", "at"), ("resolved", "at"))
Array = NDArray[np.float64]


def words(name: str) -> list[str]:
    """ "arrDelay_min" -> ["arr", "delay", "min"]."""
    parts = re.split(r"[^A-Za-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name))
    return [part.lower() for part in parts if part]


def suspects(
    frame: pl.DataFrame, columns: Sequence[Column], *, target: str, at: str | None, task: str
) -> dict[str, str]:
    """Column -> why it may be known only later. frame: typed. columns: the candidates, without entity and `at`.

    By name, by nulls that lie only where the label is missing, by times after the prediction time, by telling the
    target (nearly) alone or by adding up to it, and by following from another suspect.
    """
    found: dict[str, str] = {}
    label = frame[target]
    labelled = frame.filter(pl.col(target).is_not_null())
    if labelled.height > _SAMPLE:
        labelled = labelled.sample(_SAMPLE, seed=0)
    for column in columns:
        why = (
            _by_name(column.name, target)
            or _by_nulls(frame[column.name], label)
            or (_by_time(frame, column, at) if at is not None else None)
            or _by_telling(labelled[column.name], labelled[target], column, task)
        )
        if why:
            found[column.name] = why
    if task == "regression":
        found |= _parts_of_target(labelled, [c for c in columns if c.name not in found], target)
    return found | _following(frame, columns, found, at)


def _by_name(name: str, target: str) -> str | None:
    own, goal = words(name), words(target)
    word = next((w for w in own if w in _WORDS), None)
    if word:
        return f'its name says "{word}"'
    if any(pair == tuple(own[i : i + 2]) for pair in _PAIRS for i in range(len(own) - 1)):
        return "its name is that of something that happens"
    if goal and any(own[i : i + len(goal)] == goal for i in range(len(own) - len(goal) + 1)):
        return f"its name contains the target's ({target})"
    return None


def _by_nulls(values: pl.Series, label: pl.Series) -> str | None:
    nulls, unlabelled = values.is_null(), label.is_null()
    n = int(nulls.sum())
    if n < _MIN_NULLS or n == len(values) or (nulls & ~unlabelled).any():
        return None
    return (
        "it is null exactly where the label is"
        if n == int(unlabelled.sum())
        else "its nulls are all among rows without a label"
    )


def _by_time(frame: pl.DataFrame, column: Column, at: str) -> str | None:
    if column.type != "datetime":
        return None
    later = int((frame[column.name] > frame[at]).sum()) / max(1, frame.height)
    return f"it is after {at} in {later:.0%} of the rows" if later > 0.01 else None


# -- by how well a column alone tells the target ---------------------------------------------------------------------


def _by_telling(values: pl.Series, target: pl.Series, column: Column, task: str) -> str | None:
    strength = telling(values, target, column, task)
    if task == "regression":
        return f"it orders the target: rank correlation {strength:.2f}" if strength >= RANK_SUSPECT else None
    return f"it tells the target alone: AUC {strength:.2f}" if strength >= AUC_SUSPECT and task == "binary" else None


def telling(values: pl.Series, target: pl.Series, column: Column, task: str) -> float:
    """How well one column alone tells the target: AUC (binary, 0.5 to 1), or |rank correlation| (regression).

    Categories are judged by the target's mean among other rows (5 folds), so that many values don't look like much.
    0.5 or 0 where it can't be said.
    """
    nothing = 0.0 if task == "regression" else 0.5
    y = _target_numbers(target, task)
    if task == "multiclass" or column.type in WORDLESS or values.n_unique() < 2 or y.std() == 0:
        return nothing
    x = _category_means(values, y) if column.type in ("category", "bool") else _numbers(values)
    if x.std() == 0:
        return nothing
    if task == "regression":
        return abs(float(np.corrcoef(_ranks(x), _ranks(y))[0, 1]))
    ranks, positives = _ranks(x), float(y.sum())
    area = (float(ranks[y == 1].sum()) - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
    return max(area, 1 - area)


def _target_numbers(target: pl.Series, task: str) -> Array:
    if task == "regression":
        return target.cast(pl.Float64).to_numpy()
    first = target.drop_nulls().unique().sort()[0] if target.len() else None
    return (target != first).cast(pl.Float64).to_numpy()


def _numbers(values: pl.Series) -> Array:
    """Numbers with nulls in the middle, where they say least."""
    plain = values.to_physical().cast(pl.Float64)
    middle = plain.median()
    return plain.fill_null(middle if isinstance(middle, float) else 0.0).to_numpy()


def _category_means(values: pl.Series, y: Array) -> Array:
    folds = np.arange(len(y)) * 2_654_435_761 % 2**32 % _FOLDS
    data = pl.DataFrame({"value": values.cast(pl.String).fill_null("\x00null"), "y": y, "fold": folds})
    total = pl.col("y").sum().over("value"), pl.len().over("value")
    own = pl.col("y").sum().over("value", "fold"), pl.len().over("value", "fold")
    prior = float(y.mean())
    mean = (total[0] - own[0] + prior) / (total[1] - own[1] + 1)
    return data.select(mean).to_series().to_numpy()


def _ranks(x: Array) -> Array:
    return pl.Series(x).rank("average").to_numpy()


# -- columns that add up to the target, and columns that follow from a suspect ----------------------------------------


def _parts_of_target(frame: pl.DataFrame, columns: Sequence[Column], target: str) -> dict[str, str]:
    """Two columns whose sum or difference is the target in every row. At most 60 numeric columns are tried."""
    numeric = [c.name for c in columns if c.type in ("int", "float")][:60]
    every = pl.col(target).cast(pl.Float64)
    head = frame.head(200)
    found: dict[str, str] = {}
    # A column that was excluded for itself may still be one of two parts: so all pairs of the frame's numbers.
    names = [n for n, d in frame.schema.items() if d.is_numeric() and n != target][:60]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            for sign, made in (
                ("+", pl.col(a) + pl.col(b)),
                ("-", pl.col(a) - pl.col(b)),
                ("-", pl.col(b) - pl.col(a)),
            ):
                same = ((made.cast(pl.Float64) - every).abs() <= 1e-9 * every.abs() + 1e-12).all(ignore_nulls=False)
                if head.select(same).item() and frame.select(same).item():
                    word = "sum" if sign == "+" else "difference"
                    for one, other in ((a, b), (b, a)):
                        if one in numeric:
                            found[one] = f"the target is the {word} of it and {other}"
    return found


def _following(frame: pl.DataFrame, columns: Sequence[Column], found: dict[str, str], at: str | None) -> dict[str, str]:
    """Numbers that are computed from a suspect number or time (its hour, its quotient), and from nothing trusted.

    Computed means: equal values of the suspect always go with one value of the column, among enough repeats that this
    is no accident. Categories don't count: a plane has one airline without telling anything of its delay.
    """
    ordered = [c for c in columns if c.type in ("int", "float", "datetime")]
    suspect = [c for c in ordered if c.name in found]
    trusted = [c.name for c in ordered if c.name not in found and c.type == "datetime"] + ([at] if at else [])
    derived: dict[str, str] = {}
    for column in ordered:
        if column.name in found or column.type == "datetime":
            continue
        values = frame[column.name]
        if values.n_unique() < 3 or any(_is_part(values, frame[name]) for name in trusted):
            continue
        for other in suspect:
            source = frame[other.name]
            if _is_part(values, source) if other.type == "datetime" else _determines(source, values):
                derived[column.name] = f"it follows from {other.name}, which may be known later"
                break
    return derived


def _is_part(values: pl.Series, time: pl.Series) -> bool:
    """Whether the numbers are the hour, minute, day, … of the times, in every row where both are there."""
    part = time.dt
    hour, minute = part.hour().cast(pl.Int64), part.minute().cast(pl.Int64)
    forms = [
        hour,
        minute,
        part.day(),
        part.month(),
        part.weekday(),
        part.weekday() - 1,
        part.year(),
        part.ordinal_day(),
    ]
    forms += [hour * 100 + minute, hour * 60 + minute, part.weekday() % 7]
    both = values.is_not_null() & time.is_not_null()
    if int(both.sum()) < 20:
        return False
    given = values.filter(both).cast(pl.Float64)
    return any(bool((given == form.filter(both).cast(pl.Float64)).all()) for form in forms)


def _determines(source: pl.Series, values: pl.Series) -> bool:
    """Equal sources always have one value, in so many repeats that chance would not do it in e^50 tries."""
    pairs = pl.DataFrame({"source": source, "value": values}).drop_nulls()
    if pairs.is_empty() or pairs["value"].n_unique() < 3:
        return False
    kinds = pairs["source"].n_unique()
    shares = pairs["value"].value_counts()["count"].cast(pl.Float64) / pairs.height
    alike = float((shares * shares).sum())  # the chance that two rows have the same value
    return (pairs.height - kinds) * -math.log(alike) > _NO_CHANCE and pairs.n_unique() == kinds
