"""Format 2, contract: every dataset names its parts, so that readers need not know the older form."""

import sqlalchemy as sa
from alembic import op

from fairway.store.schema import JSON, String

revision = "0002c"
down_revision = None
branch_labels = ("contract",)
depends_on = None


def upgrade() -> None:
    table = sa.table(
        "dataset",
        sa.column("workspace", String),
        sa.column("dataset", String),
        sa.column("blob", String),
        sa.column("parts", JSON),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(table)).all():
        if row.parts:
            continue
        mine = sa.and_(table.c.workspace == row.workspace, table.c.dataset == row.dataset)
        connection.execute(sa.update(table).where(mine).values(parts=[row.blob]))
