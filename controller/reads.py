"""What can be read: each function gives a query for `Store.read`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Table, func, select

from controller.errors import NotFound
from controller.records import Artifact, Certificate, File, Record, Shard, Swap, Version
from controller.tables import FILE_USES, TABLES

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Query = Callable[[Connection], T]

# What "newest" goes by, first match; other tables go by their key.
_AGE = ("created_at", "enrolled_at", "id")


def find(kind: type[R], *key: object) -> Query[R | None]:
    """The record with this key (in the order of the table's primary key), or None."""
    table = TABLES[kind]
    same = [column == value for column, value in zip(table.primary_key, key, strict=True)]

    def query(connection: Connection) -> R | None:
        row = connection.execute(select(table).where(*same)).one_or_none()
        return None if row is None else _record(kind, row)

    return query


def get(kind: type[R], *key: object) -> Query[R]:
    """The record with this key; raises NotFound."""
    lookup = find(kind, *key)

    def query(connection: Connection) -> R:
        found = lookup(connection)
        if found is None:
            raise NotFound(f"no {kind.__name__.lower()} {' '.join(map(str, key))}")
        return found

    return query


def every(kind: type[R], *, newest: bool = False, limit: int | None = None, **equal: object) -> Query[list[R]]:
    """All records of a kind whose fields equal these; a tuple as value means any of its members.

    In the order of their keys, or `newest` first.
    """
    table = TABLES[kind]
    order = [_age(table).desc()] if newest else list(table.primary_key)
    statement = select(table).where(*_conditions(table, equal)).order_by(*order).limit(limit)

    def query(connection: Connection) -> list[R]:
        return [_record(kind, row) for row in connection.execute(statement)]

    return query


def count(kind: type[Record], **equal: object) -> Query[int]:
    table = TABLES[kind]
    statement = select(func.count()).select_from(table).where(*_conditions(table, equal))

    def query(connection: Connection) -> int:
        return int(connection.execute(statement).scalar_one())

    return query


def latest_version(model: str) -> Query[Version]:
    """The version of a model with the highest number; raises NotFound."""
    versions = TABLES[Version]
    statement = select(versions).where(versions.c.model == model).order_by(versions.c.version.desc()).limit(1)

    def query(connection: Connection) -> Version:
        row = connection.execute(statement).one_or_none()
        if row is None:
            raise NotFound(f"no model is called {model!r}", "lepta model ls")
        return _record(Version, row)

    return query


def next_sequence(model: str) -> Query[int]:
    """The number that the next manifest of a model carries."""
    artifacts = TABLES[Artifact]
    statement = select(func.max(artifacts.c.sequence)).where(artifacts.c.model == model)

    def query(connection: Connection) -> int:
        return int(connection.execute(statement).scalar() or 0) + 1

    return query


def revoked_serials(now: float) -> Query[list[str]]:
    """Of certificates that were revoked and have not expired."""
    certificates = TABLES[Certificate]
    revoked = (certificates.c.revoked_at.is_not(None), certificates.c.expires_at > now)
    statement = select(certificates.c.serial).where(*revoked).order_by(certificates.c.serial)

    def query(connection: Connection) -> list[str]:
        return [row.serial for row in connection.execute(statement)]

    return query


def last_swaps(model: str) -> Query[list[Swap]]:
    """Each device's last swap of a model."""
    swaps = TABLES[Swap]
    last = select(func.max(swaps.c.id)).where(swaps.c.model == model).group_by(swaps.c.device)
    statement = select(swaps).where(swaps.c.id.in_(last)).order_by(swaps.c.device)

    def query(connection: Connection) -> list[Swap]:
        return [_record(Swap, row) for row in connection.execute(statement)]

    return query


def sent_by_blob(job: str) -> Query[list[tuple[int, str]]]:
    """First row and device of each accepted shard of a job whose rows went there by blob, in the shards' order."""
    shards = TABLES[Shard]
    mine = (shards.c.job == job, shards.c.state == "accepted", shards.c.blob != "")
    statement = select(shards.c.first, shards.c.device).where(*mine).order_by(shards.c.number)

    def query(connection: Connection) -> list[tuple[int, str]]:
        return [(row.first, row.device) for row in connection.execute(statement)]

    return query


def uses(digest: str) -> Query[int]:
    """How many need this file."""
    statement = select(func.count()).select_from(FILE_USES).where(FILE_USES.c.digest == digest)

    def query(connection: Connection) -> int:
        return int(connection.execute(statement).scalar_one())

    return query


def unused_files(before: float) -> Query[list[File]]:
    """Files that nobody needs and that were stored before this time."""
    files = TABLES[File]
    used = select(FILE_USES.c.digest).where(FILE_USES.c.digest == files.c.digest).exists()
    statement = select(files).where(files.c.created_at < before, ~used)

    def query(connection: Connection) -> list[File]:
        return [_record(File, row) for row in connection.execute(statement)]

    return query


def _record(kind: type[R], row: Row[Any]) -> R:
    return msgspec.convert(dict(row._mapping), type=kind)


def _conditions(table: Table, equal: dict[str, object]) -> list[Any]:
    columns = {table.c[name]: value for name, value in equal.items()}
    return [column.in_(value) if isinstance(value, tuple) else column == value for column, value in columns.items()]


def _age(table: Table) -> Any:
    return next((table.c[name] for name in _AGE if name in table.c), next(iter(table.primary_key)))
