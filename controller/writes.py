"""What can be written: each function gives a write for `Store.commit`, which runs them in one transaction.

A write that raises takes the whole commit back. Every write may run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from agent.contract.manifest import is_digest
from controller import reads
from controller.errors import Busy, Conflict, Forbidden, TooMany
from controller.identity.enrolment import Application, Room, decide, revoked
from controller.policy import Override
from controller.records import (
    Artifact,
    Certificate,
    Claim,
    Client,
    Device,
    File,
    Job,
    Model,
    Record,
    Swap,
    Version,
)
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
            sqlite_insert(models)
            .values(name=version.model, created_at=version.created_at, floor=0)
            .on_conflict_do_nothing()
        )
        highest = select(func.max(versions.c.version)).where(versions.c.model == version.model)
        last = connection.execute(highest).scalar()
        numbered = msgspec.structs.replace(version, version=(last or 0) + 1)
        connection.execute(insert(versions), [_row(numbered)])
        _keep_files(connection, numbered)
        return numbered

    return write


def set_policy(model: str, policy: Override) -> Write[None]:
    """Change a model's policy and nothing else of it."""
    models = TABLES[Model]

    def write(connection: Connection) -> None:
        connection.execute(update(models).where(models.c.name == model).values(policy=_plain({"": policy})[""]))

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


def join(asked: Application, devices_most: int, pending_most: int, now: float) -> Write[Device]:
    """Let a device in by its claim, or answer it again; returns it. Raises as `decide` and `consume_claim` do."""
    devices, clients = TABLES[Device], TABLES[Client]

    def write(connection: Connection) -> Device:
        def is_taken(name: str) -> bool:
            return any(connection.execute(select(t.c.name).where(t.c.name == name)).first() for t in (devices, clients))

        def count(*conditions: Any) -> int:
            return int(connection.execute(select(func.count()).select_from(devices).where(*conditions)).scalar_one())

        mine = next(iter(reads.every(Device, public_key=asked.public_key)(connection)), None)
        claim = None
        if mine is None or mine.claim != asked.claim:
            # First of all: who has no claim learns nothing about names.
            consume_claim(asked.claim, now)(connection)
            claim = reads.find(Claim, asked.claim)(connection)
        room = Room(count(), devices_most, count(devices.c.state == "pending"), pending_most)
        device = decide(asked, claim, mine, is_taken, room, now)
        put(device)(connection)
        return device

    return write


def add_claim(claim: Claim, most: int) -> Write[None]:
    """Raises Busy where `most` are open already."""

    def write(connection: Connection) -> None:
        if reads.count(Claim)(connection) >= most:
            raise Busy(f"{most} claims are open", "use some, or wait until some have expired")
        put(claim)(connection)

    return write


def issue(certificate: Certificate, most: int, now: float) -> Write[None]:
    """Write a device's certificate down; those that have expired go. Raises Forbidden where the device is not approved
    (any more), TooMany beyond `most` of one device."""
    certificates = TABLES[Certificate]

    def write(connection: Connection) -> None:
        device = reads.find(Device, certificate.subject)(connection)
        if device is None or device.state != "approved":
            raise revoked(certificate.subject)
        connection.execute(delete(certificates).where(certificates.c.expires_at <= now))
        if reads.count(Certificate, subject=certificate.subject)(connection) >= most:
            raise TooMany(
                f"{certificate.subject} has {most} certificates that have not expired",
                "something asks for them again and again: revoke the device, and let it join anew",
            )
        put(certificate)(connection)

    return write


def revoke_certificates(subject: str, now: float) -> Write[None]:
    """All that this subject has; those that were revoked before keep their time."""
    certificates = TABLES[Certificate]

    def write(connection: Connection) -> None:
        theirs = (certificates.c.subject == subject, certificates.c.revoked_at.is_(None))
        connection.execute(update(certificates).where(*theirs).values(revoked_at=now))

    return write


def add_client(client: Client, most: int) -> Write[None]:
    """A client under a name that no device and no client has; raises Conflict, or Busy beyond `most`."""

    def write(connection: Connection) -> None:
        if any(reads.find(kind, client.name)(connection) is not None for kind in (Device, Client)):
            raise Conflict(f"the name {client.name!r} is taken", "devices and clients share one name space")
        if reads.count(Client)(connection) >= most:
            raise Busy(f"{most} clients exist: no more fit", "remove some: lepta client rm NAME")
        put(client)(connection)

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
    connection.execute(_upsert_of(table), rows)


@cache
def _upsert_of(table: Table) -> Insert:
    """Made once: making it takes longer than running it, and a job writes thousands of rows."""
    statement = sqlite_insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=others)


def _keep_files(connection: Connection, record: Record) -> None:
    match record:
        case Version():
            needed = (f"version:{record.model}:{record.version}", [record.source, record.data])
        case Artifact():
            owner = f"artifact:{record.model}:{record.version}:{record.profile}"
            needed = (owner, [record.manifest, record.bundle, *(file.digest for file in record.files.values())])
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
