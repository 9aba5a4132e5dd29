"""What a run was asked for beyond its profiles, how often it was begun, and what kind of data a version has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("versions") as versions:
        versions.add_column(sa.Column("data_name", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("recipe", sa.String(), nullable=False, server_default=""))
        runs.add_column(sa.Column("compare", sa.Boolean(), nullable=True))
        runs.add_column(sa.Column("trust", sa.Boolean(), nullable=False, server_default=sa.false()))
        runs.add_column(sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
        runs.add_column(sa.Column("left_s", sa.Float(), nullable=True))
