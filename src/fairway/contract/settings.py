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

    source: a Parquet, CSV or JSON lines file, a folder or glob of them, a Delta table; of this machine (relative to the
      project) or s3://.
    sql: a query instead of a file; needs url.
    url: of the query's database: "env:NAME" (a variable that holds the URL), or a URL without a password.
    version: of a Delta table, to keep reading that one; by default its newest.
    delimiter: of a CSV file.
    quote: of a CSV file; "" when quotes are plain characters.
    encoding: of a CSV file.
    decimal: mark of a CSV file's numbers, where a column does not say otherwise.
    owner: who is asked when the table is late, empty or shrunk; by default the project's owner.
    expect_every: the table is late when its newest `at` is older; needs `at`.
    shrink: share of its rows that may be gone since the last look; more holds training.
    label_at: column that says when the label became known; without it, `at` + label_delay.
    log: add the labelled predictions of the log to the training rows.
    until: keep rows with `at` before this, for a fixed past; needs `at`.
    """

    source: str | None = None
    sql: str | None = None
    url: str | None = None
    version: int | None = None
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
    owner: str | None = None
    expect_every: timedelta | None = None
    shrink: float = 0.1
    label_at: str | None = None
    log: bool = True
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """A source table: events that arrive by themselves, `[sources.NAME]`.

    path: its history, as data.source; `fairway serve` looks for new rows in it; without it and sql, only what was sent
      to /v1/sources/NAME.
    sql: a query instead of a path; needs url.
    url: of the query's database, as data.url.
    version: of a Delta table, as data.version.
    delimiter: of a CSV file.
    quote: of a CSV file; "" when quotes are plain characters.
    encoding: of a CSV file.
    decimal: mark of a CSV file's numbers, where a column does not say otherwise.
    owner: who is asked when the table is late, empty or shrunk; by default the project's owner.
    expect_every: the table is late when its newest event is older.
    shrink: share of its rows that may be gone since the last look; more holds training.
    every: how often `fairway serve` looks for new rows.
    at: column of the time at which an event happened.
    key: column that tells events apart: each is kept once.
    known_at: column of the time at which an event became known; no earlier prediction sees it. By default `at`.
    """

    path: str | None
    at: str
    key: str
    sql: str | None = None
    url: str | None = None
    version: int | None = None
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
    owner: str | None = None
    expect_every: timedelta | None = None
    shrink: float = 0.1
    every: timedelta = timedelta(minutes=1)
    known_at: str | None = None


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
    look_up_deadline: most time for a prediction's views to be looked up; late counts as failed.
    on_missing: what a failed look-up does: "null" predicts without those values and flags the row, "refuse" is 503.
    """

    at_from_caller: bool = False
    max_skew: timedelta = timedelta(minutes=5)
    p99: timedelta = timedelta(milliseconds=100)
    deadline: timedelta = timedelta(seconds=5)
    max_errors: float = 0.01
    look_up_deadline: timedelta = timedelta(milliseconds=50)
    on_missing: Literal["null", "refuse"] = "null"


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
class LogSettings:
    """How long the prediction log is kept.

    keep: after this, predictions and their labels are dropped; "forever" is the default.
    """

    keep: timedelta | None = None


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
    purpose: what its answers are for, and what they are not for: the first line of the model card.
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
    log: how long predictions are kept.
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
    purpose: str = ""
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
    log: LogSettings = LogSettings()
    limits: LimitSettings = LimitSettings()
    format: int = FORMAT
