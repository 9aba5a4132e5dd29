"""Pages in the database: written a batch at a time, found by their columns, and dropped oldest first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, select

from controller import pages
from controller.entries import Entry
from controller.pages import MOST_S, Page, Position, Search
from controller.reads import Query

E = TypeVar("E", bound=Entry)
Read = Callable[[bytes], Sequence[E]]
"""A page's entries from its body."""

_COLUMNS = Page.__struct_fields__


class Held(NamedTuple):
    """A page without its body."""

    id: str
    model: str
    rows: int
    size: int


def put(connection: Connection, table: Table, made: Iterable[Page], where_known: Literal["REPLACE", "IGNORE"]) -> bool:
    """Insert pages. `where_known`: what becomes of one whose id is there; with IGNORE, False if there was one."""
    rows = [msgspec.structs.astuple(each) for each in made]
    if not rows:
        return True
    # As text for the driver: SQLAlchemy would spend more on a batch of rows than SQLite.
    statement = (
        f"INSERT OR {where_known} INTO {table.name} ({', '.join(_COLUMNS)}) VALUES (?{', ?' * (len(_COLUMNS) - 1)})"
    )
    return connection.exec_driver_sql(statement, rows, {"preserve_rowcount": True}).rowcount == len(rows)


def search(table: Table, read: Read[E], asked: Search, limit: int, after: Position | None = None) -> Query[list[E]]:
    """The newest entries that fit, newest first, from `after` on."""
    at = table.c.last_at
    statement = select(at, table.c.body).where(*_may_hold(table, asked, after)).order_by(at.desc())
    fits = pages.matching(asked, after)

    def query(connection: Connection) -> list[E]:
        with connection.execute(statement) as rows:
            found = pages.newest_first(((row.last_at, row.body) for row in rows), lambda body: filter(fits, read(body)))
            return list(islice(found, limit))

    return query


def find(table: Table, read: Read[E], key: str) -> Query[E | None]:
    """The entry with this id."""
    # With the index named: by another one, all bodies before or behind the id would be sorted first.
    statement = (
        f"SELECT body FROM {table.name} INDEXED BY {table.name}_by_last WHERE last_id >= ? AND id <= ? ORDER BY last_id"
    )

    def query(connection: Connection) -> E | None:
        with connection.exec_driver_sql(statement, (key, key)) as rows:
            return next((entry for (body,) in rows for entry in read(body) if entry.id == key), None)

    return query


def oldest(connection: Connection, table: Table, *where: Any, rows: int, size: int = sys.maxsize) -> list[Held]:
    """The pages whose newest entry is oldest: as many as hold `rows` entries or `size` bytes together, no more."""
    columns = [table.c[name] for name in Held._fields]
    found: list[Held] = []
    with connection.execute(select(*columns).where(*where).order_by(table.c.last_at, table.c.id)) as each:
        while rows > 0 and size > 0 and (row := each.fetchone()) is not None:
            found.append(Held(*row))
            rows -= found[-1].rows
            size -= found[-1].size
    return found


def drop(connection: Connection, table: Table, ids: Sequence[str]) -> None:
    for first in range(0, len(ids), 500):
        connection.execute(delete(table).where(table.c.id.in_(ids[first : first + 500])))


def _may_hold(table: Table, asked: Search, after: Position | None) -> list[Any]:
    """Conditions on a page without which no entry of it fits."""
    where = [table.c.model == asked.model] if asked.model is not None else []
    where += [func.instr(table.c.marks, mark) > 0 for mark in pages.marks(asked)]
    # Texts stand in the body as they are.
    where += [func.instr(table.c.body, asked.trace_id.encode()) > 0] if asked.trace_id is not None else []
    where += [table.c.last_at >= asked.since] if asked.since is not None else []
    ends = ([asked.until] if asked.until is not None else []) + ([after.received_at] if after is not None else [])
    if ends:
        # The second says what the first implies, twice as loosely: it is what an index can use.
        where += [table.c.first_at <= min(ends), table.c.last_at <= min(ends) + 2 * MOST_S]
    return where
