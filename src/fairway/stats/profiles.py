"""Mergeable profile of one column over one window: a small state instead of rows.

Bins come from the reference once and then stay; every window is profiled on the same bins.
Merging adds the counts exactly, so hours make a day and processes make a service.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class NumericBins:
    """Half-open bins [edge, next edge) that cover the whole line.

    inner: increasing finite edges; the outermost bins end at -inf and inf.
    """

    inner: tuple[float, ...]

    @property
    def edges(self) -> tuple[float, ...]:
        """All edges, from -inf to inf."""
        return (-math.inf, *self.inner, math.inf)

    @property
    def size(self) -> int:
        """Number of value bins, without the null bin."""
        return len(self.inner) + 1

    @classmethod
    def from_reference(cls, values: ArrayLike, *, n_bins: int = 20) -> "NumericBins":
        """Bins at quantiles of the finite reference values; equal quantiles are merged.

        A value that is so frequent that it is two quantiles at once gets a bin of its own, so
        that a move just above it shows. At most n_bins bins; one bin without finite values.
        Raises: ValueError if n_bins is below 2.

        >>> NumericBins.from_reference([1, 2, 3, 4], n_bins=2).edges
        (-inf, 2.0, inf)
        """
        if n_bins < 2:
            raise ValueError(f"n_bins is {n_bins}; expected at least 2")
        array = np.asarray(values, dtype=np.float64)
        finite = np.sort(array[np.isfinite(array)])
        if not len(finite):
            return cls(())
        cuts = np.quantile(finite, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
        edges, times = np.unique(cuts, return_counts=True)
        inner: list[float] = []
        for i, edge in enumerate(edges):
            inner.append(float(edge))
            last = i + 1 == len(edges)
            above = np.searchsorted(finite, edge, side="right")
            # Without rows between this spike and the next edge the extra bin would stay empty.
            between = last or above < np.searchsorted(finite, edges[i + 1], side="left")
            after = float(np.nextafter(edge, np.inf))
            if times[i] > 1 and between and math.isfinite(after):
                inner.append(after)
        return cls(tuple(inner))

    def as_dict(self) -> dict[str, Any]:
        """JSON form: inner edges only, since JSON has no infinity."""
        return {"kind": "numeric", "inner": list(self.inner)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "NumericBins":
        """Inverse of `as_dict`."""
        return cls(tuple(float(edge) for edge in data["inner"]))


@dataclass(frozen=True)
class CategoricalBins:
    """One bin for each frequent reference value and one for every other value.

    top: values with a bin, most frequent first. rest: the other reference values, sorted.
    complete: False if the reference held too many values to keep; `unseen` then stays 0.
    """

    top: tuple[str, ...]
    rest: tuple[str, ...] = ()
    complete: bool = True

    @property
    def size(self) -> int:
        """Number of value bins, "other" included, without the null bin."""
        return len(self.top) + 1

    @classmethod
    def from_reference(cls, values: ArrayLike, *, top: int = 49, keep: int = 10_000) -> "CategoricalBins":
        """Bins for the most frequent values; ties in alphabetical order.

        values: object or str array; None and nan are null, anything else is used as its text.
        keep: with more distinct values than this (an id?), the rest is not remembered.
        """
        counts, _ = _count_categories(values)
        ranked = sorted(counts, key=lambda value: (-counts[value], value))
        complete = len(ranked) <= keep
        return cls(tuple(ranked[:top]), tuple(sorted(ranked[top:])) if complete else (), complete)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "kind": "categorical",
            "top": list(self.top),
            "rest": list(self.rest),
            "complete": self.complete,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CategoricalBins":
        """Inverse of `as_dict`."""
        return cls(tuple(data["top"]), tuple(data["rest"]), bool(data["complete"]))


@dataclass(frozen=True)
class NumericProfile:
    """Numeric column over one window.

    counts: finite values by bin; null: nan; nonfinite: infinities (in no bin); n: all rows.
    mean, m2 (sum of squared deviations), min, max: of the finite values; min and max are None
    without any. Sums that overflow stay at the largest float, so that the state is JSON.
    """

    counts: tuple[int, ...]
    null: int = 0
    nonfinite: int = 0
    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float | None = None
    max: float | None = None

    @property
    def finite(self) -> int:
        """Rows with a finite value."""
        return sum(self.counts)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the finite values; None below 2 of them."""
        return math.sqrt(self.m2 / (self.finite - 1)) if self.finite > 1 else None

    def vector(self) -> NDArray[np.int64]:
        """Counts for a distance: value bins, then the null bin."""
        return np.array([*self.counts, self.null], dtype=np.int64)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"kind": "numeric", **asdict(self), "counts": list(self.counts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "NumericProfile":
        """Inverse of `as_dict`."""
        fields = {key: value for key, value in data.items() if key != "kind"}
        return cls(**{**fields, "counts": tuple(data["counts"])})


@dataclass(frozen=True)
class CategoricalProfile:
    """Categorical column over one window.

    counts: rows by bin, the last is "other"; unseen: those of "other" whose value the
    reference never had; null: None or nan; n: all rows.
    """

    counts: tuple[int, ...]
    null: int = 0
    unseen: int = 0
    n: int = 0

    def vector(self) -> NDArray[np.int64]:
        """Counts for a distance: value bins, then the null bin."""
        return np.array([*self.counts, self.null], dtype=np.int64)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"kind": "categorical", **asdict(self), "counts": list(self.counts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CategoricalProfile":
        """Inverse of `as_dict`."""
        return cls(tuple(data["counts"]), int(data["null"]), int(data["unseen"]), int(data["n"]))


Bins = NumericBins | CategoricalBins
Profile = NumericProfile | CategoricalProfile


def bins_from_dict(data: Mapping[str, Any]) -> Bins:
    """Bins of either kind from their JSON form. Raises: ValueError on an unknown kind."""
    return NumericBins.from_dict(data) if _is_numeric(data) else CategoricalBins.from_dict(data)


def profile_from_dict(data: Mapping[str, Any]) -> Profile:
    """Profile of either kind from its JSON form. Raises: ValueError on an unknown kind."""
    return NumericProfile.from_dict(data) if _is_numeric(data) else CategoricalProfile.from_dict(data)


def _is_numeric(data: Mapping[str, Any]) -> bool:
    if data.get("kind") not in ("numeric", "categorical"):
        raise ValueError(f"kind is {data.get('kind')!r}; expected 'numeric' or 'categorical'")
    return bool(data["kind"] == "numeric")


def _count_categories(values: ArrayLike) -> tuple[Counter[str], int]:
    """Rows by text and rows that are null."""
    raw = Counter(np.asarray(values, dtype=object).ravel().tolist())
    counts: Counter[str] = Counter()
    null = 0
    for value, rows in raw.items():
        if value is None or value != value:  # nan alone differs from itself
            null += rows
        else:
            counts[str(value)] += rows
    return counts, null


@overload
def profile(bins: NumericBins, values: ArrayLike) -> NumericProfile: ...
@overload
def profile(bins: CategoricalBins, values: ArrayLike) -> CategoricalProfile: ...


def profile(bins: Bins, values: ArrayLike) -> Profile:
    """Profile of the values (n,) on these bins; empty input gives a profile of zeros.

    Numeric: nan is null. Categorical: None and nan are null, other values count as their text.

    >>> profile(NumericBins((2.0,)), [1.0, 2.0, float("nan")]).counts
    (1, 1)
    """
    if isinstance(bins, CategoricalBins):
        counts, null = _count_categories(values)
        in_top = [counts[value] for value in bins.top]
        n = counts.total()
        known = sum(in_top) + sum(counts[value] for value in bins.rest)
        unseen = n - known if bins.complete else 0
        return CategoricalProfile((*in_top, n - sum(in_top)), null, unseen, n + null)
    array = np.asarray(values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    null = int(np.isnan(array).sum())
    places = np.searchsorted(np.asarray(bins.inner, dtype=np.float64), finite, side="right")
    by_bin = tuple(int(c) for c in np.bincount(places, minlength=bins.size))
    if not len(finite):
        return NumericProfile(by_bin, null, len(array) - null, len(array))
    largest = float(np.abs(finite).max())
    unit = largest if largest > 1e150 else 1.0  # 1e308 twice must not make the mean infinite
    scaled = finite / unit
    mean = float(scaled.mean())
    m2 = min(float(((scaled - mean) ** 2).sum()) * unit * unit, _LARGEST)
    return NumericProfile(
        by_bin, null, len(array) - null - len(finite), len(array),
        mean * unit, m2, float(finite.min()), float(finite.max()),
    )  # fmt: skip


@overload
def merge(a: NumericProfile, b: NumericProfile) -> NumericProfile: ...
@overload
def merge(a: CategoricalProfile, b: CategoricalProfile) -> CategoricalProfile: ...


def merge(a: Profile, b: Profile) -> Profile:
    """Profile of both windows together: counts exact, mean and m2 to rounding.

    Both must be on the same bins. Raises: ValueError if the kind or the number of bins differs.
    Source: Chan, Golub, LeVeque 1983 for the moments.
    """
    if type(a) is not type(b) or len(a.counts) != len(b.counts):
        raise ValueError(f"profiles on other bins: {type(a).__name__} {len(a.counts)}, {len(b.counts)}")
    counts = tuple(x + y for x, y in zip(a.counts, b.counts, strict=True))
    if isinstance(a, CategoricalProfile) and isinstance(b, CategoricalProfile):
        return CategoricalProfile(counts, a.null + b.null, a.unseen + b.unseen, a.n + b.n)
    assert isinstance(a, NumericProfile) and isinstance(b, NumericProfile)
    n_a, n_b = a.finite, b.finite
    rows = max(n_a + n_b, 1)
    mean = a.mean * (n_a / rows) + b.mean * (n_b / rows)
    delta = b.mean - a.mean if n_a and n_b else 0.0
    m2 = a.m2 + b.m2 + delta * delta * (n_a * (n_b / rows))
    lows = [x for x in (a.min, b.min) if x is not None]
    highs = [x for x in (a.max, b.max) if x is not None]
    return NumericProfile(
        counts, a.null + b.null, a.nonfinite + b.nonfinite, a.n + b.n,
        mean, min(m2, _LARGEST), min(lows, default=None), max(highs, default=None),
    )  # fmt: skip
