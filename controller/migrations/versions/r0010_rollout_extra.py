"""What a rollout asks of its devices above what the manifests ask."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    with op.batch_alter_table("rollouts") as rollouts:
        rollouts.add_column(sa.Column("extra", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
