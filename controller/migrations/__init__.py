"""The schema's history, run by Alembic when the store opens. Alembic is imported only if there is something to do."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
"""Every schema that this Lepta can read or bring up to date, oldest first."""
HEAD = REVISIONS[-1]


def revision(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database."""
    table = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").scalar()
    if table is None:
        return None
    number = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if number is None else str(number)


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Bring the schema to a revision, inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # The configuration file's syntax gives '%' a meaning.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(config, to)
