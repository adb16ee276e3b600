"""The loss of one logged prediction, from its answer as logged and its label as reported. Lower is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fairway.contract.settings import Settings, Task

Loss = Literal["brier", "absolute_error", "zero_one"]

PRIMARY: dict[Task, Loss] = {"binary": "brier", "multiclass": "brier", "regression": "absolute_error"}
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How labels and outputs of a model are read. classes: in the order of a multiclass output."""

    task: Task
    positive: str | None = None
    classes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Labels":
        """Inverse of `as_dict`."""
        return cls(task=data["task"], positive=data.get("positive"), classes=tuple(data.get("classes", ())))

    @classmethod
    def of(cls, settings: Settings, classes: Sequence[Any] = ()) -> "Labels":
        return cls(task=settings.task, positive=settings.positive, classes=tuple(class_name(c) for c in classes))


def class_name(value: Any) -> str:
    """A class as text: JSON has true where a table has True, and a contract lists texts."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def primary_loss(settings: Settings) -> Loss:
    return settings.rollout.primary or PRIMARY[settings.task]


def truth(labels: Labels, label: Any) -> float | None:
    """The label as a number: 0 or 1 (binary), the class's place, the value. None if it is not one of them."""
    if label is None:
        return None
    if labels.task == "regression":
        return float(label) if isinstance(label, int | float) and math.isfinite(label) else None
    name = class_name(label)
    if labels.task == "binary":
        if labels.positive is not None:
            positive = labels.positive.lower() if isinstance(label, bool) else labels.positive
            return float(name == positive)
        return float(name in ("1", "true", "1.0"))
    return float(labels.classes.index(name)) if name in labels.classes else None


def row_loss(loss: Loss, labels: Labels, label: Any, output: Any) -> float | None:
    """Loss of one row; None when the label is unknown or there is no output."""
    y = truth(labels, label)
    if y is None or output is None:
        return None
    if labels.task == "multiclass":
        probabilities = [float(p) for p in output]
        place = int(y)
        if loss == "zero_one":
            return float(max(range(len(probabilities)), key=probabilities.__getitem__) != place)
        return sum((p - (i == place)) ** 2 for i, p in enumerate(probabilities))
    value = float(output)
    if loss == "absolute_error":
        return abs(value - y)
    if loss == "zero_one":
        return float((value >= THRESHOLD) != (y == 1.0)) if labels.task == "binary" else float(value != y)
    return (value - y) ** 2


def score(output: Any) -> float | None:
    """One number of an output for its mean: the value, P(positive), or the largest of several probabilities."""
    if output is None:
        return None
    value = max(float(p) for p in output) if isinstance(output, list | tuple) else float(output)
    return value if math.isfinite(value) else None
