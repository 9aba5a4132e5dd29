"""Which of a job's inputs went by blob, and the bytes that did not have to move."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("bytes_cached", sa.Integer(), nullable=False, server_default="0"))
        jobs.add_column(sa.Column("bytes_packed", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("shards") as shards:
        shards.add_column(sa.Column("blob", sa.String(), nullable=False, server_default=""))
