"""PURE: entries of one model share a page, which the database keeps as one row: how they are cut into pages, and read
from pages that overlap in exact order.

A row per request, with its indexes, would cost more than the request's own way through the controller.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Generic, TypeVar

import msgspec

from controller.entries import Entry

E = TypeVar("E", bound=Entry)

_MARKED = ("device", "state", "version")
# A page is encoded and decoded in one call, in which no other thread runs: it has to be short.
MOST_ROWS = 256
MOST_BYTES = 256 * 1024
MOST_S = 60.0
"""Between the oldest and the newest of a page, so that a time is found without a look at all pages."""

_received_at = attrgetter("received_at")
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


class Open(Generic[E]):
    """Entries on their way into pages. One is made as soon as it is full, so that there is never much to do at once."""

    def __init__(self, bound: Callable[[Sequence[E]], list[Page]], size: Callable[[E], int]) -> None:
        """`bound` makes pages of entries of one model."""
        self._bound = bound
        self._size = size
        self._entries: dict[str, list[E]] = {}
        self._bytes: Counter[str] = Counter()

    def __contains__(self, key: object) -> bool:
        return any(entry.id == key for entries in self._entries.values() for entry in entries)

    def add(self, entry: E) -> list[Page]:
        """What is full now."""
        model = entry.model
        entries = self._entries.setdefault(model, [])
        entries.append(entry)
        self._bytes[model] += self._size(entry)
        return self._close(model) if len(entries) >= MOST_ROWS or self._bytes[model] >= MOST_BYTES else []

    def close(self) -> list[Page]:
        """All that is left."""
        return [page for model in list(self._entries) for page in self._close(model)]

    def _close(self, model: str) -> list[Page]:
        del self._bytes[model]
        return self._bound(self._entries.pop(model))


def cut(entries: Iterable[E], size: Callable[[E], int]) -> Iterator[list[E]]:
    """The entries of each page, oldest first. `size`: bytes of one, where these may be many; one that is too large for
    any page has its own."""
    by_model: dict[str, list[E]] = defaultdict(list)
    for entry in entries:
        by_model[entry.model].append(entry)
    for mine in by_model.values():
        mine.sort(key=_received_at)
        at = [entry.received_at for entry in mine]
        sums = list(accumulate(map(size, mine), initial=0))
        first = 0
        while first < len(mine):
            fit = bisect_right(sums, sums[first] + MOST_BYTES) - 1
            last = min(first + MOST_ROWS, bisect_right(at, at[first] + MOST_S), max(first + 1, fit))
            yield mine[first:last]
            first = last


def page(entries: Sequence[Entry], size: int, body: bytes) -> Page:
    """`entries` as they were cut, `body` with them encoded."""
    ids = [entry.id for entry in entries]
    had = sorted({mark(name, value) for name in _MARKED for value in set(map(attrgetter(name), entries))})
    first, last = entries[0], entries[-1]
    return Page(
        min(ids), max(ids), first.model, "".join(had), first.received_at, last.received_at, len(entries), size, body
    )


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
