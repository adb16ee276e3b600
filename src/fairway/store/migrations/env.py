"""Alembic's entry point: runs revisions within the transaction that `store.migrate` has begun."""

from alembic import context

from fairway.store import schema
from fairway.store.migrate import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
