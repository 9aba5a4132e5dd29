"""Run by Alembic; the store's connection and transaction are used as they are."""

from __future__ import annotations

from alembic import context

from controller.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
