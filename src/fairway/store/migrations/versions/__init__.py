"""The revisions; alembic loads them by path."""
