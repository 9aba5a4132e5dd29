"""Bindings; topics that a program may publish on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "bindings",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("devices", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    with op.batch_alter_table("clients") as clients:
        clients.add_column(sa.Column("publishes", sa.JSON(none_as_null=True), nullable=False, server_default="[]"))
