"""What fairway.toml says, as values. Pure: reading and checking the text is in `contract.text`."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

Task = Literal["binary", "multiclass", "regression"]
Risk = Literal["low", "medium", "high"]

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the training table is. Exactly one of source (path, relative to the project) and sql.

    label_at: column that says when the label became known; without it, `at` + label_delay. log: add the labelled
    predictions of the log to the training rows. until: keep rows with `at` before this (ISO), for a fixed past.
    """

    source: str | None = None
    sql: str | None = None
    label_at: str | None = None
    log: bool = True
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """A source table: events that arrive by themselves. path: its history; at, key: columns; `at` is event time."""

    path: str | None
    at: str
    key: str


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Rows held back. test_share: the newest (or a hash of the entity) share; test_from: a date instead (ISO)."""

    test_share: float = 0.2
    test_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """at: whether callers may state `at`, within max_skew of now. p99: absolute latency guard. deadline per batch."""

    at_from_caller: bool = False
    max_skew: timedelta = timedelta(minutes=5)
    p99: timedelta = timedelta(milliseconds=100)
    deadline: timedelta = timedelta(seconds=5)
    max_errors: float = 0.01


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """margin: primary loss you would give up at most, absolute (None: 2 % of the champion's mean, regression)."""

    margin: float | None = 0.01
    primary: Literal["brier", "absolute_error", "zero_one"] | None = None
    n_min: int = 500
    season: timedelta = timedelta(hours=24)
    shadow: timedelta | None = None  # None: by risk, low none, medium 1 d, high 7 d
    shares: tuple[float, ...] = (0.01, 0.10, 0.50)
    timeout: timedelta | None = None  # None: derived, METHODS 1f
    label_depends_on_answer: bool = False


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """window: length of a monitored window. budget: false column alarms per model-month. js_*: METHODS 3c."""

    window: timedelta = timedelta(days=1)
    budget: float = 0.25
    js_alarm: float = 0.10
    js_notice: float = 0.05
    rows_between_false_alarms: int = 100_000
    tolerance: float = 0.01


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """every: age at which a version is retrained (None: never). Alarms retrain whenever on_alarm is true."""

    every: timedelta | None = None
    on_alarm: bool = True
    per_month: int = 10


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits of the child processes that run project code."""

    train: timedelta = timedelta(hours=1)
    memory_mb: int = 8192


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One project. label_delay None means "unknown": live accuracy is off. gates: metric -> ">= 0.65"."""

    name: str
    task: Task
    target: str
    defaults: str = "fairway@1"
    positive: str | None = None
    entity: str | None = None
    at: str | None = None
    label_delay: timedelta | None = None
    owner: str = "unknown"
    risk: Risk = "medium"
    data: DataSettings = DataSettings()
    sources: dict[str, SourceSettings] = field(default_factory=dict)
    split: SplitSettings = SplitSettings()
    train: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, str] = field(default_factory=dict)
    endpoint: EndpointSettings = EndpointSettings()
    rollout: RolloutSettings = RolloutSettings()
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = RetrainSettings()
    limits: LimitSettings = LimitSettings()
    format: int = FORMAT
