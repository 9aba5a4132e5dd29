"""Who may join, who joined, and who may call: certificates, clients, API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("devices") as devices:
        devices.add_column(sa.Column("state", sa.String(), nullable=False, server_default="approved"))
        devices.add_column(sa.Column("hardware", sa.String(), nullable=False, server_default=""))
        devices.add_column(sa.Column("claim", sa.String(), nullable=False, server_default=""))
        devices.add_column(sa.Column("certificate_expires", sa.Float(), nullable=True))
    # They were copies of what devices say; from now on they are the operator's.
    op.execute("UPDATE devices SET labels = '{}'")
    op.create_index("ix_devices_public_key", "devices", ["public_key"])
    with op.batch_alter_table("claims") as claims:
        claims.add_column(sa.Column("labels", sa.JSON(), nullable=False, server_default="{}"))
        claims.add_column(sa.Column("approve", sa.Boolean(), nullable=False, server_default=sa.true()))
        claims.add_column(sa.Column("hardware", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("ix_certificates_subject", "certificates", ["subject"])
    op.create_table(
        "clients",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("predictions", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("last_used", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
