"""Whether an artifact's manifest is signed, for whom, and its signature for other tools; the floor of a model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("floor", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("artifacts") as artifacts:
        artifacts.add_column(sa.Column("signed", sa.Boolean(), nullable=False, server_default=sa.true()))
        artifacts.add_column(sa.Column("bundle", sa.String(), nullable=False, server_default=""))
        artifacts.add_column(sa.Column("target", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
