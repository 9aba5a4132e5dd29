"""A job's priority and canaries, what its reducer was told, the kind of its result, and what it cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
        jobs.add_column(sa.Column("canaries", sa.Integer(), nullable=False, server_default="0"))
        jobs.add_column(sa.Column("settings", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
        jobs.add_column(sa.Column("format", sa.String(), nullable=False, server_default="npz"))
        jobs.add_column(sa.Column("device_s", sa.Float(), nullable=False, server_default="0"))
