"""What can be written: each function gives a write for `Store.commit`, which runs them in one transaction.

A write that raises takes the whole commit back. Every write may run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from agent.contract.manifest import is_digest
from controller.errors import Forbidden, NotFound
from controller.records import Artifact, Claim, Device, File, Job, Model, Record, Request, Swap, Version
from controller.tables import FILE_USES, TABLES

T = TypeVar("T")
Write = Callable[[Connection], T]


def put(*records: Record) -> Write[None]:
    """Insert the records, or overwrite those with the same key; many of one kind go in one statement."""

    def write(connection: Connection) -> None:
        for kind, same in groupby(records, type):
            batch = list(same)
            _upsert(connection, TABLES[kind], [_row(record) for record in batch])
            for record in batch:
                _keep_files(connection, record)

    return write


def patch(kind: type[Record], *key: object, **changes: object) -> Write[None]:
    """Change some fields of one record; raises NotFound if there is none with this key.

    Fields that name files (`Job.result`) are counted as uses only through `put`.
    """
    table = TABLES[kind]

    def write(connection: Connection) -> None:
        statement = update(table).where(*_is(table, key)).values(**_plain(changes))
        if connection.execute(statement).rowcount == 0:
            raise NotFound(f"no {kind.__name__.lower()} {' '.join(map(str, key))}")

    return write


def remove(kind: type[Record], *key: object) -> Write[None]:
    """Delete one record, if it is there."""
    table = TABLES[kind]

    def write(connection: Connection) -> None:
        connection.execute(delete(table).where(*_is(table, key)))

    return write


def add_version(version: Version) -> Write[Version]:
    """Insert a version under the next number of its model, which is made if it is new; returns it with its number.

    The only write that does something else when it runs twice: a second version.
    """

    def write(connection: Connection) -> Version:
        models, versions = TABLES[Model], TABLES[Version]
        connection.execute(
            sqlite_insert(models).values(name=version.model, created_at=version.created_at).on_conflict_do_nothing()
        )
        highest = select(func.max(versions.c.version)).where(versions.c.model == version.model)
        last = connection.execute(highest).scalar()
        numbered = msgspec.structs.replace(version, version=(last or 0) + 1)
        connection.execute(insert(versions), [_row(numbered)])
        _keep_files(connection, numbered)
        return numbered

    return write


def consume_claim(token_hash: str, now: float) -> Write[None]:
    """Use a claim once; raises Forbidden if it is unknown, expired or used up. Of two racing for it one wins."""
    claims = TABLES[Claim]

    def write(connection: Connection) -> None:
        usable = (claims.c.token_hash == token_hash, claims.c.uses_left > 0, claims.c.expires_at > now)
        taken = connection.execute(update(claims).where(*usable).values(uses_left=claims.c.uses_left - 1))
        if taken.rowcount:
            return
        row = connection.execute(select(claims).where(claims.c.token_hash == token_hash)).one_or_none()
        why = "is not known here" if row is None else "has expired" if row.expires_at <= now else "was used already"
        raise Forbidden(f"this claim {why}", "make a new one: lepta device add")

    return write


def drop_claims(now: float) -> Write[None]:
    """Delete the claims that nobody can use any more."""
    claims = TABLES[Claim]

    def write(connection: Connection) -> None:
        connection.execute(delete(claims).where((claims.c.uses_left <= 0) | (claims.c.expires_at <= now)))

    return write


def forget_device(name: str) -> Write[None]:
    """Delete a device and its swaps."""
    swaps, devices = TABLES[Swap], TABLES[Device]

    def write(connection: Connection) -> None:
        connection.execute(delete(swaps).where(swaps.c.device == name))
        connection.execute(delete(devices).where(devices.c.name == name))

    return write


def trim_requests(keep: int) -> Write[None]:
    """Drop the oldest of the request log beyond `keep`."""
    requests = TABLES[Request]

    def write(connection: Connection) -> None:
        newest = select(requests.c.received_at).order_by(requests.c.received_at.desc()).offset(keep).limit(1)
        edge = connection.execute(newest).scalar()
        if edge is not None:
            connection.execute(delete(requests).where(requests.c.received_at <= edge))

    return write


def trim_swaps(device: str, keep: int) -> Write[None]:
    """Drop the oldest swap records of a device beyond `keep`."""
    swaps = TABLES[Swap]

    def write(connection: Connection) -> None:
        newest = select(swaps.c.id).where(swaps.c.device == device).order_by(swaps.c.id.desc()).offset(keep).limit(1)
        edge = connection.execute(newest).scalar()
        if edge is not None:
            connection.execute(delete(swaps).where(swaps.c.device == device, swaps.c.id <= edge))

    return write


def use_files(owner: str, digests: Iterable[str]) -> Write[None]:
    """Say which files `owner` needs, in place of what it needed before; they stay as long as it does."""
    rows = [{"digest": digest, "owner": owner} for digest in sorted(set(digests))]

    def write(connection: Connection) -> None:
        connection.execute(delete(FILE_USES).where(FILE_USES.c.owner == owner))
        if rows:
            connection.execute(insert(FILE_USES), rows)

    return write


def forget_unused(digest: str) -> Write[bool]:
    """Delete a file's record if nobody uses it; True if it is gone."""
    files = TABLES[File]

    def write(connection: Connection) -> bool:
        used = select(FILE_USES.c.digest).where(FILE_USES.c.digest == digest).exists()
        return bool(connection.execute(delete(files).where(files.c.digest == digest, ~used)).rowcount)

    return write


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    statement = sqlite_insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    connection.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=others), rows)


def _keep_files(connection: Connection, record: Record) -> None:
    match record:
        case Version():
            needed = (f"version:{record.model}:{record.version}", [record.source, record.data])
        case Artifact():
            owner = f"artifact:{record.model}:{record.version}:{record.profile}"
            needed = (owner, [record.manifest, *(file.digest for file in record.files.values())])
        case Job():
            needed = (f"job:{record.id}", [record.input, record.result])
        case _:
            return
    use_files(needed[0], [digest for digest in needed[1] if digest and is_digest(digest)])(connection)


def _row(record: Record) -> dict[str, Any]:
    row = _plain({field: getattr(record, field) for field in record.__struct_fields__})
    if isinstance(record, Swap) and record.id == 0:
        row["id"] = None
    return row


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(values, builtin_types=(bytes,))
    return plain


def _is(table: Table, key: tuple[object, ...]) -> list[Any]:
    return [column == value for column, value in zip(table.primary_key, key, strict=True)]
