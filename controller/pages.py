"""PURE: entries of one model share a page, which the database keeps as one row: how they are put into pages, and read
from pages that overlap in exact order.

A row per request, with its indexes, would cost more than the request's own way through the controller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Generic, TypeVar

import msgspec

from controller.entries import Entry

E = TypeVar("E", bound=Entry)

_MARKED = ("device", "state", "version")
# A page is decoded in one call, in which no other thread runs: it has to be short. With as many bytes it is full.
MOST_ROWS = 256
MOST_BYTES = 256 * 1024
MOST_S = 60.0
"""Between the oldest and the newest of a page, so that a time is found without a look at all pages."""

# A MessagePack array of up to 2^32 entries: https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family
_ARRAY_32 = 0xDD
_ARRAY = struct.Struct(">BI")
_ARRAY_HEAD = _ARRAY.size

_encode_into = msgspec.msgpack.Encoder().encode_into
_marked_of: Callable[[Entry], tuple[object, ...]] = attrgetter(*_MARKED)
_order = attrgetter("received_at", "id")


class Page(msgspec.Struct, frozen=True):
    """As a row of the database, column by column."""

    id: str
    """No entry has a smaller one. A page that loses its oldest entries keeps it."""
    last_id: str
    model: str
    marks: str
    """Which devices, states and versions its entries have, between spaces; see `mark`."""
    first_at: float
    last_at: float
    rows: int
    size: int
    """Bytes that count for limits."""
    body: bytes


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """None: any. Times in seconds since 1970, `since` inclusive, `until` exclusive."""

    model: str | None = None
    device: str | None = None
    version: int | None = None
    state: str | None = None
    trace_id: str | None = None
    since: float | None = None
    until: float | None = None

    def given(self, *names: str) -> dict[str, object]:
        """Those of these fields that entries must have like this."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a list ended."""

    received_at: float
    id: str


class _Draft:
    """A page that is being written."""

    def __init__(self, first: Entry) -> None:
        self._model = first.model
        self._id = self._last_id = first.id
        self._first_at = self._last_at = first.received_at
        self._marks: set[tuple[object, ...]] = set()
        self._size = 0
        self._body = bytearray(_ARRAY_HEAD)
        self.rows = 0

    def may_hold(self, key: str) -> bool:
        return self._id <= key <= self._last_id

    def near(self, at: float) -> bool:
        """Would it still be short in time with an entry of `at`?"""
        return self._last_at - MOST_S <= at <= self._first_at + MOST_S

    def add(self, entry: Entry, size: int) -> bool:
        """Is it full now?"""
        _encode_into(entry, self._body, -1)
        self.rows += 1
        self._size += size
        self._marks.add(_marked_of(entry))
        key, at = entry.id, entry.received_at
        if key > self._last_id:
            self._last_id = key
        elif key < self._id:
            self._id = key
        if at > self._last_at:
            self._last_at = at
        elif at < self._first_at:
            self._first_at = at
        return self.rows >= MOST_ROWS or len(self._body) >= MOST_BYTES

    def page(self) -> Page:
        self._body[:_ARRAY_HEAD] = _ARRAY.pack(_ARRAY_32, self.rows)
        values = zip(_MARKED, zip(*self._marks, strict=True), strict=True)
        had = sorted({mark(name, value) for name, column in values for value in column})
        return Page(
            self._id, self._last_id, self._model, "".join(had), self._first_at, self._last_at, self.rows, self._size,
            bytes(self._body),
        )  # fmt: skip


class Open(Generic[E]):
    """Entries on their way into pages: one model's share a page. Each is encoded as it comes, so that there is never
    much to do at once."""

    def __init__(self, size: Callable[[E], int]) -> None:
        """`size`: bytes that an entry counts for in limits."""
        self._size = size
        self._drafts: dict[str, _Draft] = {}

    def may_hold(self, key: str) -> bool:
        """Can the entry with this id be in one of them?"""
        return any(draft.may_hold(key) for draft in self._drafts.values())

    def add(self, entry: E) -> list[Page]:
        """What is full now."""
        made: list[Page] = []
        draft = self._drafts.get(entry.model)
        if draft is not None and not draft.near(entry.received_at):
            made.append(draft.page())
            draft = None
        if draft is None:
            draft = self._drafts[entry.model] = _Draft(entry)
        if draft.add(entry, self._size(entry)):
            del self._drafts[entry.model]
            made.append(draft.page())
        return made

    def close(self) -> list[Page]:
        """All that is left."""
        drafts, self._drafts = self._drafts, {}
        return [draft.page() for draft in drafts.values()]


def bound(entries: Iterable[E], size: Callable[[E], int]) -> list[Page]:
    """The pages that hold these."""
    opened = Open(size)
    made = [page for entry in entries for page in opened.add(entry)]
    return made + opened.close()


def marks(search: Search) -> list[str]:
    """Found in `Page.marks` where an entry fits."""
    return [mark(name, value) for name, value in search.given(*_MARKED).items()]


def mark(name: str, value: object) -> str:
    return f" {name}={value} "


def oldest_first(entries: Iterable[E]) -> list[E]:
    return sorted(entries, key=_order)


def newest_first(pages: Iterable[tuple[float, bytes]], read: Callable[[bytes], Iterable[E]]) -> Iterator[E]:
    """The entries of all pages by (received_at, id) descending, each id once.

    `pages`: `last_at` and body, by `last_at` descending: once no page that is still to come can hold a newer entry, it
    is given out. What is not asked for is not read.
    """
    waiting: list[E] = []
    last = ""
    for last_at, body in pages:
        while waiting and waiting[-1].received_at > last_at:
            entry = waiting.pop()
            if entry.id != last:
                yield entry
            last = entry.id
        waiting = oldest_first([*waiting, *read(body)])
    for entry in reversed(waiting):
        if entry.id != last:
            yield entry
        last = entry.id


def matching(search: Search, after: Position | None) -> Callable[[Entry], bool]:
    """Does an entry fit the search, and stand behind `after`?"""
    equal = [(attrgetter(name), value) for name, value in search.given("model", "trace_id", *_MARKED).items()]
    since = float("-inf") if search.since is None else search.since
    until = float("inf") if search.until is None else search.until

    def fits(entry: Entry) -> bool:
        return (
            since <= entry.received_at < until
            and (after is None or (entry.received_at, entry.id) < (after.received_at, after.id))
            and all(get(entry) == value for get, value in equal)
        )

    return fits
