"""Is the sample fit to learn from and to judge by? Copies across the split, rare classes, a target that moved."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.checks.judged import FEW_ROWS
from fairway.checks.result import CheckResult, failed, passed, skipped, too_few
from fairway.contract.columns import Contract
from fairway.stats.distances import js_distance

Array = NDArray[Any]

FEW_OF_A_CLASS = 10  # held-out rows: fewer, and one row moves its recall by 10 points
COPIED_SHARE = 0.01  # of the held-out rows: fewer copies can't flatter a metric much
FLATTERED = 0.20  # share of the loss that copies may hide
MOVED_TIMES = 3.0  # medians or spreads this far apart are another unit or another thing
_BINS = 20


def copies_apart(contract: Contract, train: pl.DataFrame, heldout: pl.DataFrame, losses: Array | None) -> CheckResult:
    """Held-out rows whose inputs and label are all in training too: they test memory, not skill.

    Copies are natural in a table of few values, so they count only when the loss on the other rows is clearly higher.
    losses: (n,) of the held-out rows, None when there are none.
    """
    name = "copies-apart"
    roles = ("feature", "at", "target")  # the same inputs at another time are another question
    columns = [c.name for c in contract.columns if c.role in roles and c.name in train.columns]
    if not columns or heldout.is_empty():
        return skipped(name, "there are no inputs to compare")
    known = train.select(columns).unique()
    copied = (
        heldout.select(columns)
        .with_row_index("_row")
        .join(known, on=columns, how="semi", nulls_equal=True, maintain_order="left")["_row"]
        .to_numpy()
    )
    n, share = len(copied), len(copied) / heldout.height
    inside = train.height - known.height
    evidence: dict[str, Any] = {"copies": n, "rows": heldout.height, "copies_in_training": inside}
    if n:
        evidence["first"] = [int(row) for row in copied[:5]]
    say = f"{n:,} of {heldout.height:,} held-out rows are copies of training rows"
    if not n:
        say = f"no held-out row is a copy of a training row; {inside:,} copies within those"
    if share < COPIED_SHARE or losses is None:
        return passed(name, say, **evidence)
    fresh = np.delete(losses, copied)
    if len(fresh) < FEW_ROWS:
        return too_few(name, f"{say}; only {len(fresh)} others to judge by, {FEW_ROWS} needed", **evidence)
    hidden = float(fresh.mean() / losses.mean() - 1) if losses.mean() > 0 else 0.0
    evidence |= {"loss": float(losses.mean()), "loss_without_copies": float(fresh.mean())}
    if hidden > FLATTERED:
        say += f"; without them the loss is {hidden:.0%} higher. Drop the copies, or give them one entity"
        return failed(name, say, **evidence)
    return passed(name, f"{say}; without them the loss differs by {hidden:+.1%}", **evidence)


def class_balance(y_train: Array, y_heldout: Array, classes: tuple[str, ...]) -> CheckResult:
    """Are there enough rows of every class to learn it and to be judged on it? y: codes by `classes`."""
    name = "class-balance"
    if not classes:
        return skipped(name, "the target is a number")
    learned = np.bincount(y_train.astype(np.int64), minlength=len(classes))
    judged = np.bincount(y_heldout.astype(np.int64), minlength=len(classes))
    rare = int(judged.argmin())
    evidence = {"train": dict(zip(classes, learned.tolist(), strict=True)),
                "heldout": dict(zip(classes, judged.tolist(), strict=True))}  # fmt: skip
    total = learned[rare] + judged[rare]
    share = total / max(1, learned.sum() + judged.sum())
    say = f"the rarest class, {classes[rare]}, has {learned[rare]:,} training and {judged[rare]:,} held-out rows"
    if judged[rare] < FEW_OF_A_CLASS:
        return too_few(name, f"{say}; {FEW_OF_A_CLASS} held-out rows needed to tell how well it is found", **evidence)
    return passed(name, f"{say} ({share:.1%} of all)", **evidence)


def target_steady(
    y: Array, before: Array | None, classes: tuple[str, ...], champion: str | None, *, declared: bool = False
) -> CheckResult:
    """Is the target still in the unit it was? y: labels of all rows now; before: of the champion's rows, as numbers.

    The world may move, so only what drift seldom explains fails: numbers whose middle or spread is 3 times what it was,
    or a class that has vanished. declared: a person has declared the target's range, and every row is inside.
    """
    name = "target-steady"
    if champion is None:
        return skipped(name, "there is no champion yet")
    if before is None or min(len(before), len(y)) < FEW_ROWS:
        return skipped(name, f"the rows of {champion} are not there to compare with")
    if classes:
        k = len(classes)
        now, then = (np.bincount(v.astype(np.int64), minlength=k) for v in (y, before))
        gone = [classes[c] for c in range(k) if then[c] and not now[c]]
        distance = js_distance(now, then)
        evidence: dict[str, Any] = {"now": now.tolist(), "before": then.tolist(), "classes": list(classes)}
        if gone:
            had = int(then[classes.index(gone[0])])
            return failed(name, f"class {gone[0]} had {had:,} rows and has none now", **evidence)
        return passed(name, f"class shares as for {champion} (JS distance {distance:.3f})", **evidence)
    (middle, spread), (middle_before, spread_before) = _shape(y), _shape(before)
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    distance = js_distance(*(np.bincount(np.searchsorted(edges, v), minlength=len(edges) + 1) for v in (y, before)))
    evidence = {"median": middle, "median_before": middle_before, "spread": spread, "spread_before": spread_before,
                "js_distance": distance}  # fmt: skip
    # Of the spread as of the middle: a target around zero has a middle that says nothing.
    times = max(spread, 1e-300) / max(spread_before, 1e-300)
    apart = abs(middle - middle_before) / max(spread_before, 1e-300)
    if not 1 / MOVED_TIMES <= times <= MOVED_TIMES or apart > MOVED_TIMES:
        say = f"median {middle:.4g} and spread {spread:.4g}; for {champion} they were {middle_before:.4g} and "
        say += f"{spread_before:.4g}"
        if not declared:
            return failed(name, f"{say}. Another unit? If it is right, declare the target's range", **evidence)
        return passed(name, f"{say}; inside the declared range", **evidence)
    return passed(name, f"median {middle:.4g}, for {champion} {middle_before:.4g} (JS distance {distance:.3f})",
                  **evidence)  # fmt: skip


def _shape(values: Array) -> tuple[float, float]:
    """(median, distance between the 10 % and the 90 % quantile)."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return float(middle), float(high - low)
