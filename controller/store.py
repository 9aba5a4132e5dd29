"""The controller's memory: one SQLite database, one thread that owns it, one transaction per commit.

    await store.commit([writes.put(device), writes.consume_claim(token_hash, now)])
    devices = await store.read(reads.every(Device))

Writes and queries are functions of a connection (see `writes` and `reads`); records go in and come out as plain values.
`commit_now` and `read_now` do the same for callers without an event loop.

SQLite versions up to 3.51.2 have a rare corruption race between several WAL connections: here there is only one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from agent.contract.faults import fault
from controller import migrations
from controller.errors import Busy, Conflict, Internal, LeptaError
from controller.reads import Query
from controller.settings import Limits
from controller.writes import Write

T = TypeVar("T")

# Of a new file only. A page of the log is long: each page of SQLite's that it lies in is written, read and freed alone.
_PRAGMAS = ("page_size=16384", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000")
_NICENESS = 10
_ELSEWHERE = "choose another folder with --data"


class StoreError(Internal):
    """The database cannot be used."""


def _give_way() -> None:
    """A commit is milliseconds of work, and requests wait for much less: those come first where both want to run."""
    if sys.platform == "linux":  # Elsewhere it would be the whole process that gives way, and not this thread.
        os.nice(_NICENESS)


class Store:
    """Opened by its constructor; raises StoreError with what to do if that fails."""

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self._path = path
        self._limits = limits or Limits()
        self._places = threading.BoundedSemaphore(self._limits.store_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store", initializer=_give_way)
        try:
            self._connection = self._submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def commit(self, writes: Iterable[Write[Any]]) -> list[Any]:
        """Run the writes in one transaction; what each returned. All or nothing; on disk when this returns."""
        batch = list(writes)
        return await asyncio.wrap_future(self._submit(lambda: self._commit(batch)))

    async def read(self, query: Query[T]) -> T:
        return await asyncio.wrap_future(self._submit(lambda: self._read(query)))

    def commit_now(self, *writes: Write[Any]) -> list[Any]:
        return self._submit(lambda: self._commit(list(writes))).result()

    def read_now(self, query: Query[T]) -> T:
        return self._submit(lambda: self._read(query)).result()

    @property
    def alive(self) -> bool:
        """Still open."""
        return not self._connection.closed

    def close(self) -> None:
        """Finish what waits and close the database. Safe to call twice."""
        try:
            self._thread.submit(self._connection.close)
        except RuntimeError:
            return
        self._thread.shutdown(wait=True)

    # -- inside the thread

    def _open(self) -> Connection:
        _check_folder(self._path)
        try:
            connection = _connect(self._path)
        except exc.DBAPIError as error:
            raise _explained(error, self._path) from error
        try:
            self._check(connection)
            self._migrate(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, (exc.DBAPIError, OSError)):
                raise _explained(error, self._path) from error
            raise
        return connection

    def _check(self, connection: Connection) -> None:
        for pragma in _PRAGMAS:
            connection.exec_driver_sql(f"PRAGMA {pragma}").close()
        if self._path.stat().st_size <= self._limits.check_bytes:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if found != "ok":
                raise _damaged(self._path, str(found))

    def _migrate(self, connection: Connection) -> None:
        present = migrations.revision(connection)
        if present == migrations.HEAD:
            return
        if present is not None and present not in migrations.REVISIONS:
            raise StoreError(
                f"{self._path} was written by a newer Lepta (schema {present}; this one knows up to {migrations.HEAD})",
                f"update Lepta, or {_ELSEWHERE}",
            )
        self._transaction(connection, lambda: migrations.upgrade(connection))

    def _commit(self, writes: list[Write[Any]]) -> list[Any]:
        def act() -> list[Any]:
            # References are checked when all writes are done, so their order does not matter.
            self._connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            return [write(self._connection) for write in writes]

        try:
            results = self._transaction(self._connection, act)
            fault("store.after_commit")
        except (exc.DBAPIError, OSError) as error:
            raise _explained(error, self._path) from error
        return results

    def _transaction(self, connection: Connection, act: Callable[[], T]) -> T:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            result = act()
            fault("store.before_commit")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself (disk full): then there is nothing left to take back.
            if _in_transaction(connection):
                connection.exec_driver_sql("ROLLBACK")
            raise
        return result

    def _read(self, query: Query[T]) -> T:
        try:
            return query(self._connection)
        except (exc.DBAPIError, msgspec.DecodeError) as error:
            raise _explained(error, self._path) from error

    def _submit(self, act: Callable[[], T]) -> Future[T]:
        if not self._places.acquire(blocking=False):
            raise Busy("the database has too much to do", "try again in a second")
        future = self._thread.submit(act)
        future.add_done_callback(lambda _: self._places.release())
        return future


def _connect(path: Path) -> Connection:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        # Transactions are begun and ended by `_transaction` alone: the driver would begin them late and not IMMEDIATE.
        isolation_level="AUTOCOMMIT",
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    return engine.connect()


def _in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.in_transaction)


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise StoreError(f"the data folder {folder} does not exist or is not a folder", _ELSEWHERE)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(f"the data folder {folder} cannot be read and written by this user", _ELSEWHERE)
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise StoreError(f"{path} cannot be read and written by this user", _ELSEWHERE)


def _explained(error: Exception, path: Path) -> LeptaError:
    """A foreign error in our words."""
    text = str(error.orig) if isinstance(error, exc.DBAPIError) else str(error)
    lower = text.lower()
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"that contradicts what is stored: {text}")
    if "disk is full" in lower or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"no space left on the disk of {path.parent}; nothing was changed", "free some space")
    if "malformed" in lower or "not a database" in lower or isinstance(error, msgspec.DecodeError):
        return _damaged(path, text)
    return StoreError(f"the database {path} cannot be used: {text}", "check the disk and who owns the data folder")


def _damaged(path: Path, text: str) -> StoreError:
    return StoreError(f"the database {path} is damaged: {text}", f"restore a backup, or {_ELSEWHERE}")
