"""The log of requests in the database: written in batches, held to its length by the same writes, read newest first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select

from controller import page_rows
from controller.entries import Request
from controller.pages import Page, Search
from controller.reads import Query
from controller.tables import REQUEST_PAGES
from controller.writes import Write

# Entries dropped in one transaction: a lower limit is reached in several, and no commit takes long.
_MOST_GONE = 5000


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """A page. The flow's last step, the wait for the disk, is told from this when somebody asks."""

    written: float
    """When, in the monotonic seconds of `Request.since`."""
    batch: int
    """How many were written together, in all pages."""
    requests: list[Request]


class _Made(msgspec.Struct, frozen=True, array_like=True):
    """The same, of requests that are encoded already."""

    written: float
    batch: int
    requests: msgspec.Raw


_decode = msgspec.msgpack.Decoder(_Body).decode
_encode = msgspec.msgpack.Encoder().encode


def size_of(_: Request) -> int:
    """Nothing that counts: its texts are short."""
    return 0


def add(made: Sequence[Page], now: float, keep: int) -> Write[None]:
    """Write these, and drop the oldest pages: at least `keep` requests stay, and fewer than that and a page."""

    def write(connection: Connection) -> None:
        batch = sum(page.rows for page in made)
        # What waits is written again where a commit failed.
        page_rows.put(connection, REQUEST_PAGES, (_written(page, now, batch) for page in made), "REPLACE")
        _shorten(connection, keep)

    return write


def page(search: Search, limit: int) -> Query[list[Request]]:
    """Newest first."""
    return page_rows.search(REQUEST_PAGES, _read, search, limit)


def find(request_id: str) -> Query[Request | None]:
    return page_rows.find(REQUEST_PAGES, _read, request_id)


def _written(page: Page, now: float, batch: int) -> Page:
    return msgspec.structs.replace(page, body=_encode(_Made(now, batch, msgspec.Raw(page.body))))


def _shorten(connection: Connection, keep: int) -> None:
    excess = int(connection.execute(select(func.sum(REQUEST_PAGES.c.rows))).scalar() or 0) - keep
    gone = page_rows.oldest(connection, REQUEST_PAGES, rows=min(excess, _MOST_GONE))
    if sum(held.rows for held in gone) > max(0, excess):
        gone.pop()
    page_rows.drop(connection, REQUEST_PAGES, [held.id for held in gone])


def _read(content: bytes) -> list[Request]:
    body = _decode(content)
    return [_told(request, body) for request in body.requests]


def _told(request: Request, body: _Body) -> Request:
    detail = f"written with {body.batch} in one batch; {request.kept}"
    store = ("store", (body.written - request.since) * 1000, detail)
    return msgspec.structs.replace(request, steps=[*request.steps, store])
