"""What a run's artifacts are to ask of their devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("terms", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
