"""fairway.toml and contract.toml as values. Strict: an unknown key, type, range or unit is refused with its line."""

import re
from datetime import timedelta
from itertools import pairwise
from math import isfinite
from typing import Any, cast

from fairway.clock import parse_iso
from fairway.contract.address import ADDRESS, address
from fairway.contract.dump import dump_contract, dump_settings
from fairway.contract.settings import (
    FORMAT,
    DataSettings,
    EndpointSettings,
    LimitSettings,
    LogSettings,
    MonitorSettings,
    RetrainSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
    SplitSettings,
    Task,
)
from fairway.contract.text_columns import parse_contract
from fairway.contract.toml import NAME, Document, Table, check_format, kind_of
from fairway.contract.view import format_duration

__all__ = ["METRICS", "NAME", "check_name", "dump_contract", "dump_settings", "parse_contract", "parse_settings"]

TASKS = ("binary", "multiclass", "regression")
METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("auc", "accuracy", "brier", "log_loss", "precision", "recall", "f1"),
    "multiclass": ("accuracy", "brier", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}
PRIMARY: dict[str, tuple[str, ...]] = {
    "binary": ("brier", "zero_one"),
    "multiclass": ("brier", "zero_one"),
    "regression": ("absolute_error",),
}
CONDITION = re.compile(r"\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*")
_SHORT, _DAY = timedelta(milliseconds=1), timedelta(days=1)


def parse_settings(text: str, *, file: str = "fairway.toml") -> Settings:
    """What fairway.toml says. Raises: SettingsError with line, key, what was found and what is allowed."""
    top = Document(text, file=file).table()
    tables = (
        "data", "sources", "split", "train", "gates", "endpoint", "rollout", "monitor", "retrain", "log", "limits",
    )  # fmt: skip
    keys = (
        "format", "name", "task", "target", "positive", "entity", "at", "label_delay", "owner", "purpose", "risk",
        "defaults",
    )  # fmt: skip
    top.allow(*keys, *tables)
    check_format(top, FORMAT)
    name = top.need_text("name")
    check_name(top, name)
    task = cast(Task, top.need_text("task", known=TASKS))
    target = top.need_text("target")
    entity, at = top.text("entity"), top.text("at")
    for key, value in (("entity", entity), ("at", at)):
        if value == target:
            raise top.wrong(key, f'is "{value}", which is the target')
    defaults = top.text("defaults", "fairway@1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*@\d+", defaults):
        raise top.wrong("defaults", f'is "{defaults}"; it must be a name and a version such as fairway@1')
    return Settings(
        name=name,
        task=task,
        target=target,
        positive=_positive(top, task),
        entity=entity,
        at=at,
        label_delay=top.duration("label_delay", None, words={"unknown": None}),
        owner=top.text("owner", "unknown"),
        purpose=top.text("purpose", ""),
        risk=top.text("risk", "medium", known=("low", "medium", "high")),
        defaults=defaults,
        data=_data(top.sub("data"), at),
        sources={key: _source(top.sub("sources"), key) for key in top.sub("sources").data},
        split=_split(top.sub("split"), at),
        train=_train(top.sub("train")),
        gates=_gates(top.sub("gates"), task),
        endpoint=_endpoint(top.sub("endpoint")),
        rollout=_rollout(top.sub("rollout"), task),
        monitor=_monitor(top.sub("monitor")),
        retrain=_retrain(top.sub("retrain")),
        log=_log(top.sub("log"), top.duration("label_delay", None, words={"unknown": None})),
        limits=_limits(top.sub("limits")),
    )


def check_name(top: Table, name: str) -> None:
    """A model's name becomes part of URLs and paths. Raises: SettingsError."""
    if not NAME.fullmatch(name) or name.endswith(".staging"):
        raise top.wrong(
            "name", f'is "{name}"; it must be 1 to 64 of a-z 0-9 . _ - and start with a letter or digit (not *.staging)'
        )


def _positive(top: Table, task: Task) -> str | None:
    """The class to detect, as text: true is "true", 1 is "1"."""
    if not top.has("positive"):
        return None
    if task != "binary":
        raise top.wrong("positive", f"is for task binary only; the task is {task}")
    value = top.data["positive"]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else cast(str, top.text("positive"))


def _moment(table: Table, key: str) -> str | None:
    """A time as ISO text with a zone; a bare date is its first moment in UTC."""
    value = table.text(key)
    if value is None:
        return None
    try:
        parse_iso(value + "T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else value)
    except ValueError as exc:
        raise table.wrong(key, f'is "{value}"; write a date (2014-05-01) or a time with its zone') from exc
    return cast(str, value)


def _data(table: Table, at: str | None) -> DataSettings:
    table.allow("source", "label_at", "log", "until", *ADDRESS)
    source, sql = table.text("source"), table.text("sql")
    if source is not None and sql is not None:
        raise table.wrong("sql", "and data.source are both given; a project has one training table")
    if source is None and sql is None:
        raise table.document.error(table.path, 'data.source is missing: [data] source = "table.csv"')
    for key in ("until", "expect_every"):
        if table.has(key) and at is None:
            raise table.wrong(key, "needs a time column: set at")
    return DataSettings(
        source=source, label_at=table.text("label_at"), log=table.flag("log", True), until=_moment(table, "until"),
        **address(table, place=source),
    )  # fmt: skip


def _source(sources: Table, name: str) -> SourceSettings:
    table = sources.sub(name)
    if not NAME.fullmatch(name):
        raise sources.wrong(name, "is no name for a source; use 1 to 64 of a-z 0-9 . _ -")
    table.allow("path", "at", "key", "known_at", "every", *ADDRESS)
    path = table.text("path")
    if path is not None and table.has("sql"):
        raise table.wrong("sql", "and path are both given; a source has one history")
    return SourceSettings(
        path=path, at=table.need_text("at"), key=table.need_text("key"), known_at=table.text("known_at"),
        every=table.duration("every", SourceSettings.every, low=timedelta(seconds=1), high=timedelta(days=30)),
        **address(table, place=path),
    )  # fmt: skip


def _split(table: Table, at: str | None) -> SplitSettings:
    table.allow("test_share", "test_from")
    test_from = _moment(table, "test_from")
    if test_from is not None and at is None:
        raise table.wrong("test_from", "needs a time column: set at")
    return SplitSettings(test_share=table.share("test_share", 0.2, low=0.01, high=0.9), test_from=test_from)


def _train(table: Table) -> dict[str, Any]:
    """Free-form: handed to train(). Only what JSON can keep, because runs and versions record it."""

    def check(value: Any, key: str) -> None:
        if isinstance(value, list):
            for item in value:
                check(item, key)
        elif isinstance(value, dict):
            for item in value.values():
                check(item, key)
        elif isinstance(value, float) and not isfinite(value):
            raise table.wrong(key, f"is {value}; numbers must be finite")
        elif not isinstance(value, str | int | float):
            raise table.wrong(key, f"must be text, number, true/false, list or table, got {kind_of(value)}")

    for key, value in table.data.items():
        check(value, key)
    return dict(table.data)


def _gates(table: Table, task: Task) -> dict[str, str]:
    table.allow(*METRICS[task])
    for key, value in table.data.items():
        if not isinstance(value, str) or not CONDITION.fullmatch(value):
            raise table.wrong(key, f'must be a condition such as ">= 0.80", got {kind_of(value)}')
    return dict(table.data)


def _endpoint(table: Table) -> EndpointSettings:
    table.allow("at_from_caller", "max_skew", "p99", "deadline", "max_errors", "look_up_deadline", "on_missing")
    base = EndpointSettings()
    return EndpointSettings(
        at_from_caller=table.flag("at_from_caller", base.at_from_caller),
        max_skew=table.duration("max_skew", base.max_skew),
        p99=table.duration("p99", base.p99, low=_SHORT, high=timedelta(minutes=1)),
        deadline=table.duration("deadline", base.deadline, low=timedelta(milliseconds=10), high=timedelta(minutes=5)),
        max_errors=table.share("max_errors", base.max_errors),
        look_up_deadline=table.duration(
            "look_up_deadline", base.look_up_deadline, low=_SHORT, high=timedelta(seconds=30)
        ),
        on_missing=table.text("on_missing", base.on_missing, known=("null", "refuse")),
    )


def _rollout(table: Table, task: Task) -> RolloutSettings:
    known = ("margin", "primary", "n_min", "season", "shadow", "shares", "timeout", "label_depends_on_answer")
    table.allow(*known)
    base = RolloutSettings()
    if task == "regression":
        margin = table.number("margin", None, low=0.0)
    else:
        margin = table.share("margin", base.margin, above=True)
    primary = table.text("primary", None, known=PRIMARY[task])
    season = table.duration("season", base.season, high=timedelta(days=366))
    shadow = table.duration("shadow", None, words={"none": timedelta(0)}, high=timedelta(days=90))
    timeout = table.duration("timeout", None, low=_SHORT)
    for key, length in (("season", season), ("shadow", shadow)):
        if timeout is not None and length is not None and timeout < length:
            says = f"is {format_duration(timeout)}, shorter than {key} ({format_duration(length)})"
            raise table.wrong("timeout", f"{says}: every rollout would end undecided")
    return RolloutSettings(
        margin=margin,
        primary=primary,
        n_min=table.whole("n_min", base.n_min, low=1, high=10**9),
        season=season,
        shadow=shadow,
        shares=_shares(table, base.shares),
        timeout=timeout,
        label_depends_on_answer=table.flag("label_depends_on_answer", False),
    )


def _shares(table: Table, default: tuple[float, ...]) -> tuple[float, ...]:
    if not table.has("shares"):
        return default
    value = table.data["shares"]
    if not isinstance(value, list) or not value:
        raise table.wrong(
            "shares", f"must be a list of growing shares such as [0.01, 0.10, 0.50], got {kind_of(value)}"
        )
    shares = tuple(table.as_share("shares", item, above=True) for item in value)
    if any(b <= a for a, b in pairwise(shares)):
        raise table.wrong("shares", f"must grow from step to step, got {list(value)}")
    return shares


def _monitor(table: Table) -> MonitorSettings:
    table.allow("window", "budget", "js_alarm", "js_notice", "rows_between_false_alarms", "tolerance")
    base = MonitorSettings()
    alarm, notice = table.share("js_alarm", base.js_alarm), table.share("js_notice", base.js_notice)
    if notice > alarm:
        raise table.wrong("js_notice", f"is {notice:g}, above js_alarm ({alarm:g}); a notice comes before an alarm")
    return MonitorSettings(
        window=table.duration("window", base.window, low=timedelta(minutes=1), high=timedelta(days=366)),
        budget=table.number("budget", base.budget, low=0.0),
        js_alarm=alarm,
        js_notice=notice,
        rows_between_false_alarms=table.whole(
            "rows_between_false_alarms", base.rows_between_false_alarms, low=100, high=10**12
        ),
        tolerance=table.number("tolerance", base.tolerance, low=0.0),
    )


def _retrain(table: Table) -> RetrainSettings:
    table.allow("every", "on_alarm", "per_month")
    base = RetrainSettings()
    return RetrainSettings(
        every=table.duration("every", None, low=timedelta(minutes=1), words={"never": None}),
        on_alarm=table.flag("on_alarm", base.on_alarm),
        per_month=table.whole("per_month", base.per_month, low=0, high=100_000),
    )


def _log(table: Table, label_delay: timedelta | None) -> LogSettings:
    table.allow("keep")
    keep = table.duration("keep", None, low=timedelta(hours=1), words={"forever": None})
    if keep is not None and label_delay is not None and keep <= label_delay:
        raise table.wrong("keep", "is not longer than label_delay: no prediction would ever meet its label")
    return LogSettings(keep=keep)


def _limits(table: Table) -> LimitSettings:
    table.allow("train", "memory_mb")
    base = LimitSettings()
    return LimitSettings(
        train=table.duration("train", base.train, low=timedelta(seconds=1), high=timedelta(days=30)),
        memory_mb=table.whole("memory_mb", base.memory_mb, low=128, high=4_194_304),
    )
