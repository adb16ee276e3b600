"""Format 1: the tables of fairway 0.1."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float

from fairway.store.schema import JSON, Integer, String, Timestamp

revision = "0001"
down_revision = None
branch_labels = ("expand",)
depends_on = None


def _key(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _table(name: str, *columns: Column[Any]) -> None:
    op.create_table(name, _key("workspace"), *columns)


def upgrade() -> None:
    _table(
        "meta",
        _key("key"),
        Column("value", JSON),
    )
    _table(
        "sequence",
        _key("name"),
        Column("last", Integer, nullable=False),
    )
    _table(
        "model",
        _key("model"),
        Column("project_path", String),
        Column("settings", JSON, nullable=False),
        Column("created_at", Timestamp, nullable=False),
    )
    _table(
        "run",
        _key("run"),
        Column("model", String, nullable=False),
        Column("status", String, nullable=False),
        Column("cause", String, nullable=False),
        Column("started_at", Timestamp, nullable=False),
        Column("ended_at", Timestamp),
        Column("settings", JSON, nullable=False),
        Column("steps", JSON, nullable=False),
        Column("result", JSON),
        Column("error", String),
        Column("fairway", String, nullable=False),
        Column("format", Integer, nullable=False),
    )
    _table(
        "version",
        _key("model"),
        _key("version", Integer),
        Column("run", String, nullable=False),
        Column("artifact", String, nullable=False),
        Column("dataset", String),
        Column("contract", String, nullable=False),
        Column("verdict", String, nullable=False),
        Column("metrics", JSON, nullable=False),
        Column("checks", JSON, nullable=False),
        Column("settings", JSON, nullable=False),
        Column("trained_until", Timestamp),
        Column("author", String, nullable=False),
        Column("created_at", Timestamp, nullable=False),
        Column("fairway", String, nullable=False),
        Column("format", Integer, nullable=False),
    )
    _table(
        "dataset",
        _key("dataset"),
        Column("blob", String, nullable=False),
        Column("rows", Integer, nullable=False),
        Column("columns", JSON, nullable=False),
        Column("origin", JSON, nullable=False),
        Column("created_at", Timestamp, nullable=False),
    )
    _table(
        "step",
        _key("key"),
        Column("name", String, nullable=False),
        Column("result", JSON, nullable=False),
        Column("created_at", Timestamp, nullable=False),
    )
    _table(
        "endpoint",
        _key("endpoint"),
        Column("model", String, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("share_epoch", Integer, nullable=False),
        Column("champion", Integer),
        Column("previous", Integer),
        Column("challenger", Integer),
        Column("rollout", String),
        Column("shares", JSON, nullable=False),
        Column("shadows", JSON, nullable=False),
        Column("salt", String, nullable=False),
        Column("state", String, nullable=False),
        Column("changed_by", String, nullable=False),
        Column("changed_at", Timestamp, nullable=False),
    )
    _table(
        "gateway",
        _key("gateway"),
        Column("supervisor", String, nullable=False),
        Column("heartbeat_at", Timestamp, nullable=False),
        Column("pid", Integer, nullable=False),
        Column("prepared", JSON, nullable=False),
        Column("active", JSON, nullable=False),
        Column("report", JSON, nullable=False),
    )
    _table(
        "segment",
        _key("segment"),
        Column("blob", String, nullable=False),
        Column("rows", Integer, nullable=False),
        Column("folded_at", Timestamp, nullable=False),
    )
    _table(
        "log_file",
        _key("blob"),
        Column("kind", String, nullable=False),
        Column("model", String, nullable=False),
        Column("contract", String, nullable=False),
        Column("hour", Timestamp, nullable=False),
        Column("rows", Integer, nullable=False),
        Column("segment", String, nullable=False),
    )
    _table(
        "prediction",
        _key("prediction"),
        Column("endpoint", String, nullable=False),
        Column("model", String, nullable=False),
        Column("at", Timestamp, nullable=False),
        Column("received_at", Timestamp, nullable=False),
        Column("unit", String, nullable=False),
        Column("rollout", String),
        Column("share_epoch", Integer, nullable=False),
        Column("arm", Integer),
        Column("propensity", Float),
        Column("contract", String, nullable=False),
        Column("flags", JSON, nullable=False),
        Column("body", String, nullable=False),
        Column("answers", JSON, nullable=False),
        Column("segment", String, nullable=False),
        Column("label", JSON),
        Column("label_at", Timestamp),
        Column("judged_at", Timestamp),
    )
    _table(
        "label",
        _key("prediction"),
        _key("name"),
        _key("event"),
        Column("value", JSON, nullable=False),
        Column("at", Timestamp, nullable=False),
        Column("received_at", Timestamp, nullable=False),
        Column("matched", Boolean, nullable=False),
    )
    _table(
        "counter",
        _key("name"),
        Column("value", BigInteger, nullable=False),
    )
    _table(
        "rollout",
        _key("rollout"),
        Column("endpoint", String, nullable=False),
        Column("model", String, nullable=False),
        Column("champion", Integer),
        Column("challenger", Integer, nullable=False),
        Column("phase", String, nullable=False),
        Column("step", Integer, nullable=False),
        Column("step_at", Timestamp, nullable=False),
        Column("plan", JSON, nullable=False),
        Column("state", JSON, nullable=False),
        Column("decision", JSON),
        Column("started_by", String, nullable=False),
        Column("started_at", Timestamp, nullable=False),
        Column("ended_at", Timestamp),
        Column("settings", JSON, nullable=False),
        Column("fairway", String, nullable=False),
        Column("format", Integer, nullable=False),
    )
    _table(
        "stratum",
        _key("rollout"),
        _key("metric"),
        _key("share_epoch", Integer),
        _key("block", Timestamp),
        _key("arm"),
        Column("share", Float, nullable=False),
        Column("n", BigInteger, nullable=False),
        Column("sum", Float, nullable=False),
        Column("sumsq", Float, nullable=False),
    )
    _table(
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
    _table(
        "look",
        _key("rollout"),
        _key("look", Integer),
        Column("at", Timestamp, nullable=False),
        Column("sums", JSON, nullable=False),
        Column("decision", JSON, nullable=False),
    )
    _table(
        "bins",
        _key("model"),
        _key("contract"),
        Column("bins", JSON, nullable=False),
    )
    _table(
        "window",
        _key("model"),
        _key("contract"),
        _key("start_at", Timestamp),
        Column("end_at", Timestamp, nullable=False),
        Column("rows", Integer, nullable=False),
        Column("profile", JSON, nullable=False),
        Column("closed_at", Timestamp),
        Column("judgement", JSON),
        Column("performance", JSON),
    )
    _table(
        "monitor_state",
        _key("model"),
        _key("name"),
        Column("state", JSON, nullable=False),
    )
    _table(
        "alarm",
        _key("alarm"),
        Column("model", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("subject", String, nullable=False),
        Column("severity", String, nullable=False),
        Column("opened_at", Timestamp, nullable=False),
        Column("closed_at", Timestamp),
        Column("evidence", JSON, nullable=False),
        Column("action", JSON),
        Column("settings", JSON, nullable=False),
        Column("format", Integer, nullable=False),
    )
    _table(
        "review",
        _key("review"),
        Column("model", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("subject", String, nullable=False),
        Column("question", String, nullable=False),
        Column("evidence", JSON, nullable=False),
        Column("choices", JSON, nullable=False),
        Column("assignee", String, nullable=False),
        Column("not_by", String),
        Column("opened_at", Timestamp, nullable=False),
        Column("due_at", Timestamp),
        Column("answer", String),
        Column("answered_by", String),
        Column("answered_at", Timestamp),
        Column("why", String),
    )
    _table(
        "job",
        _key("job"),
        Column("kind", String, nullable=False),
        Column("key", String, nullable=False),
        Column("payload", JSON, nullable=False),
        Column("status", String, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("fence", Integer, nullable=False),
        Column("owner", String),
        Column("lease_until", Timestamp),
        Column("queued_at", Timestamp, nullable=False),
        Column("ended_at", Timestamp),
        Column("result", JSON),
        Column("error", String),
    )
    _table(
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
    _table(
        "token",
        _key("name"),
        Column("digest", String, nullable=False),
        Column("roles", JSON, nullable=False),
        Column("created_at", Timestamp, nullable=False),
        Column("expires_at", Timestamp),
    )
    op.create_index("prediction_by_time", "prediction", ["workspace", "endpoint", "at"])
    op.create_index("prediction_unjudged", "prediction", ["workspace", "endpoint", "judged_at", "at"])
    op.create_index("label_waiting", "label", ["workspace", "matched", "received_at"])
