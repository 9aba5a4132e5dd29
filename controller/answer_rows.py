"""Stored answers in the database: written in batches, held to their limits by the same writes, read page by page.

What each model's answers take stands in a table beside them, kept in the same transaction: limits cost no sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from controller import policy, records
from controller.policy import Policy
from controller.reads import Query
from controller.tables import ANSWER_SIZES, TABLES
from controller.writes import Write

_ANSWERS = TABLES[records.Answer]
# Deleted in one transaction for one limit: a lower limit is reached in several, and no commit takes long.
_MOST_GONE = 5000
_HEAVY = ("outputs", "inputs")
_TOLD = records.Answer.__struct_fields__
# As text for the driver: SQLAlchemy would spend more on a batch of rows than SQLite.
_INSERT = (
    f"INSERT INTO {_ANSWERS.name} ({', '.join(_TOLD)}) VALUES ({', '.join('?' * len(_TOLD))}) ON CONFLICT DO NOTHING"
)
_told_of = attrgetter(*_TOLD)


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Empty or None: any. Times in seconds since 1970, `since` inclusive, `until` exclusive."""

    model: str | None = None
    device: str | None = None
    version: int | None = None
    state: str | None = None
    trace_id: str | None = None
    since: float | None = None
    until: float | None = None


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended."""

    received_at: float
    id: str


def add(answers: Callable[[], Sequence[records.Answer]], of: Callable[[str], Policy], most: int) -> Write[int]:
    """Insert answers, then drop the oldest of their models beyond each one's limit, and of all models beyond `most`
    bytes; returns how many were dropped. `answers` is called in the database's thread: encoding them costs the loop
    nothing."""

    def write(connection: Connection) -> int:
        batch = answers()
        _insert(connection, batch)
        dropped = 0
        for model in {answer.model for answer in batch}:
            dropped += _shrink(connection, model, of(model).most_bytes)
        return dropped + _shrink(connection, None, most)

    return write


def expire(of: Callable[[str], Policy], now: float) -> Write[int]:
    """Drop answers that are older than their model's policy allows, or that a lowered limit leaves no room for."""

    def write(connection: Connection) -> int:
        dropped = 0
        for (model,) in connection.execute(select(ANSWER_SIZES.c.model)).all():
            old = (_ANSWERS.c.model == model, _ANSWERS.c.received_at < of(model).oldest(now))
            ids = connection.execute(select(_ANSWERS.c.id).where(*old).limit(_MOST_GONE)).scalars().all()
            dropped += _drop(connection, ids) + _shrink(connection, model, of(model).most_bytes)
        return dropped

    return write


def page(search: Search, limit: int, after: Position | None = None) -> Query[list[records.Answer]]:
    """Newest first, without their tensors, from `after` on."""
    equal = {name: getattr(search, name) for name in ("model", "device", "version", "state", "trace_id")}
    where = [_ANSWERS.c[name] == value for name, value in equal.items() if value is not None]
    at, key = _ANSWERS.c.received_at, _ANSWERS.c.id
    where += [at >= search.since] if search.since is not None else []
    where += [at < search.until] if search.until is not None else []
    where += [tuple_(at, key) < tuple_(after.received_at, after.id)] if after is not None else []
    columns = [column for column in _ANSWERS.columns if column.name not in _HEAVY]
    statement = select(*columns).where(*where).order_by(at.desc(), key.desc()).limit(limit)

    def query(connection: Connection) -> list[records.Answer]:
        return [msgspec.convert(dict(row._mapping), records.Answer) for row in connection.execute(statement)]

    return query


def sizes() -> Query[dict[str, tuple[int, int]]]:
    """Per model: rows, and bytes that count."""

    def query(connection: Connection) -> dict[str, tuple[int, int]]:
        return {row.model: (row.rows, row.bytes) for row in connection.execute(select(ANSWER_SIZES))}

    return query


def _insert(connection: Connection, batch: Sequence[records.Answer]) -> None:
    if not batch:
        return
    rows = [_told_of(answer) for answer in batch]
    if connection.exec_driver_sql(_INSERT, rows, {"preserve_rowcount": True}).rowcount == len(rows):
        counts = Counter(answer.model for answer in batch)
        total: Counter[str] = Counter()
        for answer in batch:
            total[answer.model] += answer.size
        _count(connection, counts, total)
    else:
        # Some were there: this write ran before.
        _recount(connection, {answer.model for answer in batch})


def _shrink(connection: Connection, model: str | None, most: int) -> int:
    mine = [] if model is None else [ANSWER_SIZES.c.model == model]
    total = connection.execute(select(func.sum(ANSWER_SIZES.c.bytes)).where(*mine)).scalar() or 0
    if total <= most:
        return 0
    whose = [] if model is None else [_ANSWERS.c.model == model]
    order = (_ANSWERS.c.received_at, _ANSWERS.c.id)
    oldest = select(_ANSWERS.c.id, _ANSWERS.c.size).where(*whose).order_by(*order).limit(_MOST_GONE)
    found = ((row.id, row.size) for row in connection.execute(oldest))
    return _drop(connection, policy.surplus(found, total, most))


def _drop(connection: Connection, ids: Sequence[str]) -> int:
    """Delete these, and count them out."""
    for first in range(0, len(ids), 500):
        gone = _ANSWERS.c.id.in_(ids[first : first + 500])
        freed = select(_ANSWERS.c.model, func.count(), func.sum(_ANSWERS.c.size)).where(gone)
        took = connection.execute(freed.group_by(_ANSWERS.c.model)).all()
        connection.execute(delete(_ANSWERS).where(gone))
        _count(connection, {model: -n for model, n, _ in took}, {model: -size for model, _, size in took})
    return len(ids)


def _count(connection: Connection, rows: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    values = [{"model": model, "rows": rows[model], "bytes": sizes[model]} for model in rows]
    if not values:
        return
    statement = insert(ANSWER_SIZES)
    added: dict[str, Any] = {name: ANSWER_SIZES.c[name] + statement.excluded[name] for name in ("rows", "bytes")}
    connection.execute(statement.on_conflict_do_update(index_elements=["model"], set_=added), values)


def _recount(connection: Connection, models: set[str]) -> None:
    connection.execute(delete(ANSWER_SIZES).where(ANSWER_SIZES.c.model.in_(models)))
    found = select(_ANSWERS.c.model, func.count(), func.sum(_ANSWERS.c.size)).where(_ANSWERS.c.model.in_(models))
    counted = connection.execute(found.group_by(_ANSWERS.c.model)).all()
    _count(connection, {model: n for model, n, _ in counted}, {model: took for model, _, took in counted})
