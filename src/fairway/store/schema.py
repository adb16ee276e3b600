"""The tables. The workspace is the first column of every primary key; times are microseconds UTC (`Timestamp`).

The types make one schema mean the same on every engine: texts sort by their bytes, whole numbers have 64 bits, and a
text may hold what it likes. A change here is a migration too (store/migrations), and a test compares them.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import JSON as _Json
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy import Integer as _Integer
from sqlalchemy import String as _String
from sqlalchemy.sql.elements import Null
from sqlalchemy.types import TypeEngine

from fairway import clock

FORMAT = 2


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC time, stored as a 64-bit integer so that it orders and compares exactly on every engine."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else clock.to_us(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else clock.from_us(value)


_MARK, _NUL, _ITSELF = "\U0010fffe", "\U0010fffe0", "\U0010fffe1"  # a code point that no text exchanges


class String(TypeDecorator[str]):
    """Any text, ordered by code points on every engine: what a rule decides must not depend on a server's locale.

    Postgres stores no NUL, which a caller may send within an entity or a label: it is written as a mark there.
    """

    impl = _String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(_String(collation=collation))

    def bind_processor(self, dialect: Dialect) -> Any:
        return _without_nul if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _with_nul if dialect.name == "postgresql" else None


def _without_nul(value: Any) -> Any:
    if value is None or ("\0" not in value and _MARK not in value):
        return value
    return value.replace(_MARK, _ITSELF).replace("\0", _NUL)


def _with_nul(value: Any) -> Any:
    if value is None or _MARK not in value:
        return value
    return value.replace(_NUL, "\0").replace(_ITSELF, _MARK)


class JSON(TypeDecorator[Any]):
    """Any value of JSON, the keys in their order, and NaN: a metric that is no number is kept as one on every engine.

    Text on Postgres: its `json` refuses NaN, its `jsonb` NUL as well, and forgets the order of keys. `::json` reads it.
    """

    impl = _Json
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "postgresql" else _Json())

    def bind_processor(self, dialect: Dialect) -> Any:
        return _dumps if dialect.name == "postgresql" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _loads if dialect.name == "postgresql" else super().result_processor(dialect, coltype)


def _dumps(value: Any) -> str | None:
    return None if isinstance(value, Null) else json.dumps(value)  # `sqlalchemy.null()` is SQL's, None is JSON's


def _loads(value: str | None) -> Any:
    return None if value is None else json.loads(value)


Integer = _Integer().with_variant(BigInteger(), "postgresql")  # SQLite's INTEGER has 64 bits by itself

metadata = MetaData()


def _key(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, _key("workspace"), *columns)


meta = _table("meta", _key("key"), Column("value", JSON))

sequence = _table("sequence", _key("name"), Column("last", Integer, nullable=False))  # rollout-9, review-31, versions

# -- registry --------------------------------------------------------------------------------------------------------

model = _table(
    "model",
    _key("model"),
    Column("project_path", String),  # where its fairway.toml was last seen, for retraining
    Column("settings", JSON, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

run = _table(
    "run",
    _key("run"),  # run-7f3a
    Column("model", String, nullable=False),
    Column("status", String, nullable=False),  # running | done | failed
    Column("cause", String, nullable=False),  # person | schedule | alarm-12 | review-31 | backtest
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("settings", JSON, nullable=False),  # resolved
    Column("steps", JSON, nullable=False),  # [{name, key, seconds, cached, summary}]
    Column("result", JSON),  # see path.train
    Column("error", String),
    Column("fairway", String, nullable=False),
    Column("format", Integer, nullable=False),
)

version = _table(
    "version",
    _key("model"),
    _key("version", Integer),
    Column("run", String, nullable=False),
    Column("artifact", String, nullable=False),  # hash of the package's manifest (runtime.package)
    Column("dataset", String),
    Column("contract", String, nullable=False),  # contract-…
    Column("verdict", String, nullable=False),  # pass | fail | ask: the gate's
    Column("metrics", JSON, nullable=False),
    Column("checks", JSON, nullable=False),
    Column("settings", JSON, nullable=False),  # resolved settings, defaults' name and version
    Column("trained_until", Timestamp),  # newest `at` among its training rows
    Column("author", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("fairway", String, nullable=False),
    Column("format", Integer, nullable=False),
)

dataset = _table(
    "dataset",
    _key("dataset"),  # data-16320c…: by content
    Column("blob", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("origin", JSON, nullable=False),  # files with their hashes, log rows
    Column("created_at", Timestamp, nullable=False),
    Column("parts", JSON),  # Parquet blobs that together are the rows; format 1: `blob` alone
    Column("erased_at", Timestamp),  # rows were erased on request: the id stays, its content has changed
)

step = _table(  # cached steps of the path, by fingerprint of everything they depend on
    "step",
    _key("key"),
    Column("name", String, nullable=False),
    Column("result", JSON, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

# -- desired state ---------------------------------------------------------------------------------------------------

endpoint = _table(
    "endpoint",
    _key("endpoint"),
    Column("model", String, nullable=False),
    Column("epoch", Integer, nullable=False),  # grows with every change
    Column("share_epoch", Integer, nullable=False),  # epoch of the last change of shares
    Column("champion", Integer),
    Column("previous", Integer),  # what `rollback` goes back to; kept warm
    Column("challenger", Integer),
    Column("rollout", String),
    Column("shares", JSON, nullable=False),  # {"3": 0.9, "4": 0.1}; sums to 1, or empty: no champion
    Column("shadows", JSON, nullable=False),  # versions that also score every row, unseen by callers
    Column("salt", String, nullable=False),
    Column("state", String, nullable=False),  # live | no_champion | retired
    Column("changed_by", String, nullable=False),
    Column("changed_at", Timestamp, nullable=False),
)

gateway = _table(
    "gateway",
    _key("gateway"),
    Column("supervisor", String, nullable=False),
    Column("heartbeat_at", Timestamp, nullable=False),  # real time, also under a virtual clock
    Column("pid", Integer, nullable=False),
    Column("prepared", JSON, nullable=False),  # {endpoint: epoch}
    Column("active", JSON, nullable=False),  # {endpoint: epoch}
    Column("report", JSON, nullable=False),  # url, counters, loading, last error
)

# -- the log ---------------------------------------------------------------------------------------------------------

segment = _table(
    "segment",
    _key("segment"),
    Column("blob", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("folded_at", Timestamp, nullable=False),
)

log_file = _table(  # Parquet of the prediction log: readers list from here, never from a folder
    "log_file",
    _key("blob"),
    Column("kind", String, nullable=False),  # prediction | source
    Column("model", String, nullable=False),  # or the source's name
    Column("contract", String, nullable=False),
    Column("hour", Timestamp, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("segment", String, nullable=False),
)

prediction = _table(  # the folded log's index: exactly-once, joins and sums; whole inputs are in Parquet
    "prediction",
    _key("prediction"),
    Column("endpoint", String, nullable=False),
    Column("model", String, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("unit", String, nullable=False),
    Column("rollout", String),
    Column("share_epoch", Integer, nullable=False),
    Column("arm", Integer),  # version that was assigned
    Column("propensity", Float),
    Column("contract", String, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("body", String, nullable=False),  # hash of the request's body
    Column("answers", JSON, nullable=False),  # {"3": {"role","status","output","latency_ms"}}
    Column("segment", String, nullable=False),
    Column("label", JSON),  # current label, latest by its event time
    Column("label_at", Timestamp),
    Column("judged_at", Timestamp),  # when it entered the performance sums
    Index("prediction_by_time", "workspace", "endpoint", "at"),
    Index("prediction_unjudged", "workspace", "endpoint", "judged_at", "at"),
)

label = _table(  # every feedback row ever accepted, unmatched ones too
    "label",
    _key("prediction"),
    _key("name"),
    _key("event"),
    Column("value", JSON, nullable=False),
    Column("at", Timestamp, nullable=False),  # event time
    Column("received_at", Timestamp, nullable=False),
    Column("matched", Boolean, nullable=False),
    Index("label_waiting", "workspace", "matched", "received_at"),
)

counter = _table("counter", _key("name"), Column("value", BigInteger, nullable=False))  # conflicts, unmatched, expired

# -- rollouts --------------------------------------------------------------------------------------------------------

rollout = _table(
    "rollout",
    _key("rollout"),
    Column("endpoint", String, nullable=False),
    Column("model", String, nullable=False),
    Column("champion", Integer),
    Column("challenger", Integer, nullable=False),
    Column("phase", String, nullable=False),  # waiting | running | paused | guarding | promoted | rolled_back | ended
    Column("step", Integer, nullable=False),  # place in plan.steps
    Column("step_at", Timestamp, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("state", JSON, nullable=False),  # frozen thresholds (v_opt, q, caps), max e-values so far
    Column("decision", JSON),  # the deciding look, whole
    Column("started_by", String, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("settings", JSON, nullable=False),
    Column("fairway", String, nullable=False),
    Column("format", Integer, nullable=False),
)

stratum = _table(  # sums per rollout, metric, share epoch, calendar block and arm (METHODS 0)
    "stratum",
    _key("rollout"),
    _key("metric"),  # requests | errors | slow | primary | primary_paired | score | assigned
    _key("share_epoch", Integer),
    _key("block", Timestamp),
    _key("arm", String),  # champion | challenger | paired
    Column("share", Float, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("sum", Float, nullable=False),
    Column("sumsq", Float, nullable=False),
)

rollout_unit = _table(  # one entity in one rollout: enters the sums once
    "rollout_unit",
    _key("rollout"),
    _key("metric"),
    _key("unit"),
    Column("arm", String, nullable=False),
    Column("share_epoch", Integer, nullable=False),
    Column("block", Timestamp, nullable=False),
    Column("n", Integer, nullable=False),
    Column("sum", Float, nullable=False),
    Column("folded_at", Timestamp),
)

look = _table(  # each look stores the sums that it saw, so that it can be recomputed
    "look",
    _key("rollout"),
    _key("look", Integer),
    Column("at", Timestamp, nullable=False),
    Column("sums", JSON, nullable=False),
    Column("decision", JSON, nullable=False),
)

# -- monitoring and people -------------------------------------------------------------------------------------------

bins = _table(  # reference bins belong to (model, contract): profiles in them add
    "bins",
    _key("model"),
    _key("contract"),
    Column("bins", JSON, nullable=False),
)

window = _table(
    "window",
    _key("model"),
    _key("contract"),
    _key("start_at", Timestamp),
    Column("end_at", Timestamp, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("profile", JSON, nullable=False),  # per column, mergeable
    Column("closed_at", Timestamp),
    Column("judgement", JSON),  # drift verdict per column
    Column("performance", JSON),  # matured metric with interval
)

monitor_state = _table("monitor_state", _key("model"), _key("name"), Column("state", JSON, nullable=False))

alarm = _table(
    "alarm",
    _key("alarm"),  # alarm-12
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),  # drift | performance | quality | guardrail | age | log
    Column("subject", String, nullable=False),  # column, metric: one open alarm per (model, kind, subject)
    Column("severity", String, nullable=False),  # notice | alarm
    Column("opened_at", Timestamp, nullable=False),
    Column("closed_at", Timestamp),
    Column("evidence", JSON, nullable=False),
    Column("action", JSON),  # what the loop did about it: METHODS 9 row, job or review
    Column("settings", JSON, nullable=False),
    Column("format", Integer, nullable=False),
)

review = _table(
    "review",
    _key("review"),  # review-31
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),  # approve | retrain | rollout
    Column("subject", String, nullable=False),  # churn@3, rollout-9, alarm-12
    Column("question", String, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("choices", JSON, nullable=False),  # {"approve": "what happens", ...}
    Column("assignee", String, nullable=False),
    Column("not_by", String),  # the author may not answer
    Column("opened_at", Timestamp, nullable=False),
    Column("due_at", Timestamp),
    Column("answer", String),
    Column("answered_by", String),
    Column("answered_at", Timestamp),
    Column("why", String),
)

# -- jobs, audit, access ---------------------------------------------------------------------------------------------

job = _table(
    "job",
    _key("job"),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),  # unique while not ended: the same work is not queued twice
    Column("payload", JSON, nullable=False),
    Column("status", String, nullable=False),  # queued | running | waiting | done | failed | cancelled
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),  # grows with every claim; every write of the holder carries it
    Column("owner", String),
    Column("lease_until", Timestamp),  # by the database's clock
    Column("queued_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("result", JSON),
    Column("error", String),
    Column("not_before", Timestamp),  # by the database's clock: a retry waits so long
    Column("max_attempts", Integer),
    Column("cancelled_by", String),  # asked for; the holder sees it at its next heartbeat
    Column("waits_for", String),  # the signal that a waiting job goes on at
    Column("limits", JSON),  # {"timeout_s": …, "memory_mb": …}
    Index("job_open", "workspace", "status", "queued_at"),
)

job_step = _table(  # named steps of a job that are done: a later attempt takes their results
    "job_step",
    _key("job"),
    _key("step"),
    Column("input", String, nullable=False),  # hash of what the step was given
    Column("result", JSON),
    Column("fence", Integer, nullable=False),
    Column("ended_at", Timestamp, nullable=False),
)

signal = _table(  # an answer that a waiting job goes on with; kept, so that it may come before the wait
    "signal",
    _key("job"),
    _key("name"),
    Column("payload", JSON),
    Column("sent_by", String, nullable=False),
    Column("sent_at", Timestamp, nullable=False),
)

schedule = _table(
    "schedule",
    _key("schedule"),
    Column("kind", String, nullable=False),  # of its jobs
    Column("payload", JSON, nullable=False),
    Column("every_us", BigInteger, nullable=False),
    Column("starts_at", Timestamp, nullable=False),  # tick 0
    Column("backfill", String, nullable=False),  # none | latest | all: ticks that were missed
    Column("paused", Boolean, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

schedule_tick = _table(  # unique (schedule, tick): a tick makes one job, whoever sees it first
    "schedule_tick",
    _key("schedule"),
    _key("tick", Timestamp),
    Column("job", String),  # null: skipped by the backfill rule
    Column("made_at", Timestamp, nullable=False),
)

audit = _table(
    "audit",
    _key("entry", Integer),
    Column("at", Timestamp, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
)

token = _table(
    "token",
    _key("name"),
    Column("digest", String, nullable=False),  # SHA-256 of the token
    Column("roles", JSON, nullable=False),  # viewer | scientist | approver | admin | predict | feedback
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
)

source_state = _table(  # the training table as it was last read: late, empty or shrunk is told from here
    "source_state",
    _key("model"),
    _key("source"),  # "data", or a source table's name
    Column("rows", BigInteger, nullable=False),
    Column("newest", Timestamp),
    Column("read_at", Timestamp, nullable=False),
    Column("content", String, nullable=False),  # dataset id, table version or hash
    Column("state", String, nullable=False),  # ok | held
    Column("review", String),
)

erasure = _table(
    "erasure",
    _key("erasure"),
    Column("model", String, nullable=False),
    Column("entity", String, nullable=False),  # hash of the entity: what was erased is not written down again
    Column("state", String, nullable=False),  # running | done
    Column("found", JSON, nullable=False),  # counts by kind
    Column("asked_by", String, nullable=False),
    Column("asked_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("why", String, nullable=False),
)
