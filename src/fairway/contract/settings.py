"""What fairway.toml says, as values. Pure: reading and checking the text is in `contract.text`.

A docstring's lines "key: meaning" are the settings reference: `docs/make_reference.py` reads them, and a test compares.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

Task = Literal["binary", "multiclass", "regression"]
Risk = Literal["low", "medium", "high"]

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the training table is; exactly one of source and sql.

    source: a Parquet or CSV file, or a folder of them, relative to the project.
    sql: a query instead of a file; refused in this version.
    label_at: column that says when the label became known; without it, `at` + label_delay.
    log: add the labelled predictions of the log to the training rows.
    until: keep rows with `at` before this, for a fixed past; needs `at`.
    """

    source: str | None = None
    sql: str | None = None
    label_at: str | None = None
    log: bool = True
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """A source table: events that arrive by themselves, `[sources.NAME]`.

    path: its history, a file or folder; without it, only what was sent to /v1/sources/NAME.
    at: column of the time at which an event happened.
    key: column that tells events apart: each is kept once.
    """

    path: str | None
    at: str
    key: str


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Rows held back to evaluate on.

    test_share: the newest share by `at`; without `at`, a share by a hash of the entity.
    test_from: a date instead; needs `at`.
    """

    test_share: float = 0.2
    test_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How the endpoint answers, and what a first version is held to.

    at_from_caller: whether a request may state `at`.
    max_skew: how far a stated `at` may lie from now.
    p99: a first version is taken off when more than 1 % of its answers are slower; also the latency check's budget.
    deadline: most time for one batch.
    max_errors: a first version is taken off when more of its predictions fail.
    """

    at_from_caller: bool = False
    max_skew: timedelta = timedelta(minutes=5)
    p99: timedelta = timedelta(milliseconds=100)
    deadline: timedelta = timedelta(seconds=5)
    max_errors: float = 0.01


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """From challenger to champion.

    margin: primary loss you would give up at most; for regression, absolute, by default 2 % of the champion's mean.
    primary: the loss that decides; by default brier, zero_one or absolute_error by task.
    n_min: labelled predictions before a promotion, at least.
    season: the decision has seen at least this span.
    shadow: time in shadow; by default by risk: low none, medium 1d, high 7d.
    shares: the canary's steps.
    timeout: when to stop undecided; by default label delay + forecast + season.
    label_depends_on_answer: the answer changes what happens (a blocked payment): labels of shadows prove nothing.
    """

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
    """What is watched, and how often a false alarm may come.

    window: length of a monitored window.
    budget: false column alarms per model and 30 days.
    js_alarm: Jensen-Shannon distance from which an unusual window is an alarm.
    js_notice: the same for a notice.
    rows_between_false_alarms: of the live error and of the live skill, on average at least.
    tolerance: rise of the error rate that is accepted.
    """

    window: timedelta = timedelta(days=1)
    budget: float = 0.25
    js_alarm: float = 0.10
    js_notice: float = 0.05
    rows_between_false_alarms: int = 100_000
    tolerance: float = 0.01


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """When a version is trained again.

    every: age at which it is; "never" is the default.
    on_alarm: also on a performance alarm.
    per_month: retrains in 30 days, at most.
    """

    every: timedelta | None = None
    on_alarm: bool = True
    per_month: int = 10


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits of the child processes that run project code.

    train: most time for one call of train().
    memory_mb: most memory, in MB.
    """

    train: timedelta = timedelta(hours=1)
    memory_mb: int = 8192


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One project.

    format: of this file.
    name: the model's name, and its first endpoint's.
    task: what is predicted: a class of two, a class of more, or a number.
    target: the column to predict.
    positive: the class that is looked for; task binary only.
    entity: column that says what a row is about: splits and shares go by it.
    at: column of the prediction time: nothing later is ever an input.
    label_delay: until the truth is known; "unknown" (the default) turns live accuracy off.
    owner: who gets reviews and alarms.
    risk: medium starts rollouts in shadow; high waits for another person before it goes live.
    defaults: the golden path by name and version: `fairway show defaults`.
    data: where the table is.
    sources: tables of events, by name.
    split: what is held back.
    train: handed to train() as params, as it is.
    gates: metric to condition, such as auc = ">= 0.80"; not worse than the champion and better than the base rate
      always hold.
    endpoint: how it answers.
    rollout: how a version becomes champion.
    monitor: what is watched.
    retrain: when it is trained again.
    limits: of the project's code.
    """

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
