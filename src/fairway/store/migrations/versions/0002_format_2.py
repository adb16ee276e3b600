"""Format 2, expand: jobs with steps, signals and schedules; what is known of sources; erasures; Parquet in parts.

Only adds: code of format 1 goes on beside it.
"""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column

from fairway.store.schema import JSON, Integer, String, Timestamp

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _key(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _table(name: str, *columns: Column[Any]) -> None:
    op.create_table(name, _key("workspace"), *columns)


def upgrade() -> None:
    op.add_column("dataset", Column("parts", JSON))
    op.add_column("dataset", Column("erased_at", Timestamp))
    op.add_column("job", Column("not_before", Timestamp))
    op.add_column("job", Column("max_attempts", Integer))
    op.add_column("job", Column("cancelled_by", String))
    op.add_column("job", Column("waits_for", String))
    op.add_column("job", Column("limits", JSON))
    op.create_index("job_open", "job", ["workspace", "status", "queued_at"])
    op.add_column("token", Column("last_used_at", Timestamp))
    _table(
        "job_step",
        _key("job"),
        _key("step"),
        Column("input", String, nullable=False),
        Column("result", JSON),
        Column("fence", Integer, nullable=False),
        Column("ended_at", Timestamp, nullable=False),
    )
    _table(
        "signal",
        _key("job"),
        _key("name"),
        Column("payload", JSON),
        Column("sent_by", String, nullable=False),
        Column("sent_at", Timestamp, nullable=False),
    )
    _table(
        "schedule",
        _key("schedule"),
        Column("kind", String, nullable=False),
        Column("payload", JSON, nullable=False),
        Column("every_us", BigInteger, nullable=False),
        Column("starts_at", Timestamp, nullable=False),
        Column("backfill", String, nullable=False),
        Column("paused", Boolean, nullable=False),
        Column("created_at", Timestamp, nullable=False),
    )
    _table(
        "schedule_tick",
        _key("schedule"),
        _key("tick", Timestamp),
        Column("job", String),
        Column("made_at", Timestamp, nullable=False),
    )
    _table(
        "source_state",
        _key("model"),
        _key("source"),
        Column("rows", BigInteger, nullable=False),
        Column("newest", Timestamp),
        Column("read_at", Timestamp, nullable=False),
        Column("content", String, nullable=False),
        Column("state", String, nullable=False),
        Column("review", String),
    )
    _table(
        "erasure",
        _key("erasure"),
        Column("model", String, nullable=False),
        Column("entity", String, nullable=False),
        Column("state", String, nullable=False),
        Column("found", JSON, nullable=False),
        Column("asked_by", String, nullable=False),
        Column("asked_at", Timestamp, nullable=False),
        Column("ended_at", Timestamp),
        Column("why", String, nullable=False),
    )
