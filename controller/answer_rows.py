"""Stored answers in the database: written in batches, held to their limits by the same writes, read newest first.

What each model's answers take stands in a table beside their pages, kept in the same transaction: limits cost no sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from controller import page_rows, pages, policy
from controller.entries import Answer, FullAnswer
from controller.page_rows import Held
from controller.pages import Page, Position, Search
from controller.policy import Policy
from controller.reads import Query
from controller.tables import ANSWER_PAGES, ANSWER_SIZES
from controller.writes import Write

# Answers dropped in one transaction for one limit: a lower limit is reached in several, and no commit takes long.
_MOST_GONE = 5000
_read_full = msgspec.msgpack.Decoder(list[FullAnswer]).decode
_read = msgspec.msgpack.Decoder(list[Answer]).decode
size_of: Callable[[FullAnswer], int] = attrgetter("size")


def add(made: Sequence[Page], of: Callable[[str], Policy], most: int) -> Write[int]:
    """Insert answers, then drop the oldest of their models beyond each one's limit, and of all models beyond `most`
    bytes; returns how many were dropped."""

    def write(connection: Connection) -> int:
        models = {page.model for page in made}
        if page_rows.put(connection, ANSWER_PAGES, made, "IGNORE"):
            _count(connection, made, 1)
        else:
            # Some were there: this write ran before.
            _recount(connection, models)
        dropped = 0
        for model in models:
            dropped += _shrink(connection, model, of(model).most_bytes)
        return dropped + _shrink(connection, None, most)

    return write


def expire(of: Callable[[str], Policy], now: float) -> Write[int]:
    """Drop pages of which no answer is as young as its model's policy allows, and what a lowered limit leaves no room
    for: an answer stays a minute longer than it may, at most."""

    def write(connection: Connection) -> int:
        dropped = 0
        for (model,) in connection.execute(select(ANSWER_SIZES.c.model)).all():
            old = (ANSWER_PAGES.c.model == model, ANSWER_PAGES.c.last_at < of(model).oldest(now))
            dropped += _drop(connection, page_rows.oldest(connection, ANSWER_PAGES, *old, rows=_MOST_GONE))
            dropped += _shrink(connection, model, of(model).most_bytes)
        return dropped

    return write


def page(search: Search, limit: int, after: Position | None = None) -> Query[list[Answer]]:
    """Newest first, without their tensors, from `after` on."""
    return page_rows.search(ANSWER_PAGES, _read, search, limit, after)


def find(request_id: str) -> Query[FullAnswer | None]:
    return page_rows.find(ANSWER_PAGES, _read_full, request_id)


def sizes() -> Query[dict[str, tuple[int, int]]]:
    """Per model: answers, and bytes that count."""

    def query(connection: Connection) -> dict[str, tuple[int, int]]:
        return {row.model: (row.rows, row.bytes) for row in connection.execute(select(ANSWER_SIZES))}

    return query


def _shrink(connection: Connection, model: str | None, most: int) -> int:
    mine = [] if model is None else [ANSWER_SIZES.c.model == model]
    total = connection.execute(select(func.sum(ANSWER_SIZES.c.bytes)).where(*mine)).scalar() or 0
    if total <= most:
        return 0
    whose = [] if model is None else [ANSWER_PAGES.c.model == model]
    held = page_rows.oldest(connection, ANSWER_PAGES, *whose, rows=_MOST_GONE, size=total - most)
    if not held:
        return 0
    *whole, edge = held
    left = total - sum(each.size for each in whole)
    return _drop(connection, whole) + _trim(connection, edge, left, most)


def _trim(connection: Connection, edge: Held, total: int, most: int) -> int:
    """Drop the oldest answers of a page, as many as must go so that `most` of `total` bytes are left."""
    body = connection.execute(select(ANSWER_PAGES.c.body).where(ANSWER_PAGES.c.id == edge.id)).scalar_one()
    try:
        answers = pages.oldest_first(_read_full(body))
    except msgspec.DecodeError:
        # Whatever happened to it, it must not keep others from being written.
        return _drop(connection, [edge])
    gone = policy.surplus(((each.id, each.size) for each in answers), total, most)
    if len(gone) == len(answers):
        return _drop(connection, [edge])
    kept = msgspec.structs.replace(pages.bound(answers[len(gone) :], size_of)[0], id=edge.id)
    page_rows.put(connection, ANSWER_PAGES, [kept], "REPLACE")
    _count(connection, [kept], 1)
    _count(connection, [edge], -1)
    return len(gone)


def _drop(connection: Connection, held: Sequence[Held]) -> int:
    """Delete these pages, and count their answers out; returns how many answers."""
    page_rows.drop(connection, ANSWER_PAGES, [each.id for each in held])
    _count(connection, held, -1)
    return sum(each.rows for each in held)


def _count(connection: Connection, of: Iterable[Page | Held], sign: int) -> None:
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in of:
        rows[each.model] += sign * each.rows
        sizes[each.model] += sign * each.size
    _add_sizes(connection, rows, sizes)


def _add_sizes(connection: Connection, rows: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    values = [{"model": model, "rows": rows[model], "bytes": sizes[model]} for model in rows]
    if not values:
        return
    statement = insert(ANSWER_SIZES)
    added: dict[str, Any] = {name: ANSWER_SIZES.c[name] + statement.excluded[name] for name in ("rows", "bytes")}
    connection.execute(statement.on_conflict_do_update(index_elements=["model"], set_=added), values)


def _recount(connection: Connection, models: set[str]) -> None:
    connection.execute(delete(ANSWER_SIZES).where(ANSWER_SIZES.c.model.in_(models)))
    rows, size = func.sum(ANSWER_PAGES.c.rows), func.sum(ANSWER_PAGES.c.size)
    found = select(ANSWER_PAGES.c.model, rows, size).where(ANSWER_PAGES.c.model.in_(models))
    counted = connection.execute(found.group_by(ANSWER_PAGES.c.model)).all()
    _add_sizes(connection, {model: n for model, n, _ in counted}, {model: took for model, _, took in counted})
