"""Pages of entries: cut within bounds, and read as if each entry had a row of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete

from controller import page_rows, pages
from controller.entries import Entry
from controller.pages import Position, Search
from controller.store import Store
from controller.tables import REQUEST_PAGES
from controller.writes import Write

_read = msgspec.msgpack.Decoder(list[Entry]).decode


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Opened once: Hypothesis has no patience for migrations."""
    opened = Store(tmp_path_factory.mktemp("store") / "lepta.db")
    yield opened
    opened.close()


def _entry(number: int, at: float, model: str = "a", device: str = "pi-1", **more: object) -> Entry:
    made = Entry(f"r{number:03}", "t", model, 1, "", device, "", "answered", at)
    return msgspec.structs.replace(made, **more)


def _no_bytes(entry: Entry) -> int:
    return 0


def _page(entries: Sequence[Entry]) -> pages.Page:
    (page,) = pages.bound(entries, _no_bytes)
    return page


def _put(batch: Sequence[Entry]) -> Write[None]:
    def write(connection: Connection) -> None:
        page_rows.put(connection, REQUEST_PAGES, pages.bound(batch, _no_bytes), "REPLACE")

    return write


def _fill(store: Store, *batches: Sequence[Entry]) -> None:
    store.commit_now(lambda connection: connection.execute(delete(REQUEST_PAGES)), *map(_put, batches))


def _listed(store: Store, search: Search, limit: int = 1000, after: Position | None = None) -> list[Entry]:
    return store.read_now(page_rows.search(REQUEST_PAGES, _read, search, limit, after))


def _ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.id for entry in entries]


# Times of a few seconds, and now and then one that is minutes away.
_TIMES = st.integers(0, 9).map(float) | st.sampled_from([100.0, 250.5])
_ROWS = st.tuples(_TIMES, st.sampled_from("ab"), st.sampled_from(["", "pi-1", "pi-10"]), st.integers(1, 2))


@st.composite
def _batches(draw: st.DrawFn) -> list[list[Entry]]:
    """Of a log: several pages, which overlap."""
    rows = draw(st.lists(st.lists(_ROWS, max_size=12), max_size=6))
    numbers = iter(range(1000))
    return [[_entry(next(numbers), at, m, d, version=v) for at, m, d, v in batch] for batch in rows]


_OPTIONAL_TIME = st.none() | st.integers(0, 10).map(float)
_SEARCHES = st.builds(
    Search,
    model=st.none() | st.sampled_from("abc"),
    device=st.none() | st.sampled_from(["", "pi-1", "pi-10", "pi"]),
    version=st.none() | st.integers(1, 3),
    trace_id=st.none() | st.sampled_from(["t", "u"]),
    since=_OPTIONAL_TIME,
    until=_OPTIONAL_TIME,
)


def _plain(batches: Sequence[Sequence[Entry]], search: Search) -> list[Entry]:
    """What a table with a row per entry would say."""
    fits = pages.matching(search, None)
    every = sorted((e for batch in batches for e in batch), key=lambda e: (e.received_at, e.id), reverse=True)
    return [entry for entry in every if fits(entry)]


@settings(max_examples=150, deadline=None)
@given(_batches(), _SEARCHES, st.integers(1, 20))
def test_page_by_page_each_entry_that_fits_comes_once_newest_first(
    store: Store, batches: list[list[Entry]], search: Search, limit: int
) -> None:
    _fill(store, *batches)
    expected = _plain(batches, search)
    after: Position | None = None
    for first in range(0, len(expected) + 1, limit):
        found = _listed(store, search, limit, after)
        assert found == expected[first : first + limit]
        after = Position(found[-1].received_at, found[-1].id) if found else after


@settings(max_examples=60, deadline=None)
@given(_batches())
def test_every_entry_is_found_by_its_id_and_no_other(store: Store, batches: list[list[Entry]]) -> None:
    _fill(store, *batches)
    for entry in (entry for batch in batches for entry in batch):
        assert store.read_now(page_rows.find(REQUEST_PAGES, _read, entry.id)) == entry
        assert store.read_now(page_rows.find(REQUEST_PAGES, _read, f"{entry.id}x")) is None


@settings(max_examples=60, deadline=None)
@given(_batches())
def test_what_is_written_again_and_with_more_is_listed_once(store: Store, batches: list[list[Entry]]) -> None:
    growing = [[entry for batch in batches[: n + 1] for entry in batch] for n in range(len(batches))]
    _fill(store, *growing, *growing[-1:])
    assert _listed(store, Search()) == _plain(batches, Search())


def test_a_device_is_not_found_by_a_part_of_its_name(store: Store) -> None:
    _fill(store, [_entry(1, 1.0, device="pi-1"), _entry(2, 2.0, device="pi-10"), _entry(3, 3.0, device="api-1")])
    assert _ids(_listed(store, Search(device="pi-1"))) == ["r001"]
    assert _ids(_listed(store, Search(device="pi"))) == []


def test_a_list_reads_no_page_behind_its_limit(store: Store) -> None:
    _fill(store, *([_entry(n, float(100 * n))] for n in range(9)))
    seen: list[bytes] = []

    def read(body: bytes) -> list[Entry]:
        seen.append(body)
        return _read(body)

    assert _ids(store.read_now(page_rows.search(REQUEST_PAGES, read, Search(), 2))) == ["r008", "r007"]
    assert len(seen) == 2


def test_a_list_that_ended_early_leaves_the_database_free(tmp_path: Path) -> None:
    store = Store(tmp_path / "lepta.db")
    store.commit_now(*(_put([_entry(n, float(100 * n))]) for n in range(9)))
    _listed(store, Search(), 1)
    busy, _, _ = store.read_now(lambda c: c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one())
    assert not busy
    store.close()


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 500), st.integers(0, 2 * pages.MOST_BYTES)), max_size=40),
    st.integers(0, 600),
)
def test_pages_hold_one_model_within_their_bounds_and_nothing_is_lost(
    rows: list[tuple[str, float, int]], small: int
) -> None:
    rows = [*rows, *[("a", 250.0, 1)] * small]
    entries = [_entry(n, at, model, runtime="x" * size) for n, (model, at, size) in enumerate(rows)]
    made = pages.bound(entries, lambda entry: len(entry.runtime))
    held = {page.id: _read(page.body) for page in made}
    assert Counter(e.id for page in held.values() for e in page) == Counter(e.id for e in entries)
    for page in made:
        here = held[page.id]
        at = [entry.received_at for entry in here]
        assert {entry.model for entry in here} == {page.model}
        assert (page.first_at, page.last_at, page.rows) == (min(at), max(at), len(here))
        assert (page.id, page.last_id) == (min(e.id for e in here), max(e.id for e in here))
        assert page.size == sum(len(entry.runtime) for entry in here)
        assert page.rows <= pages.MOST_ROWS
        assert page.last_at - page.first_at <= pages.MOST_S + 1e-9
        assert len(msgspec.msgpack.encode(here[:-1])) < pages.MOST_BYTES


def test_a_page_tells_its_smallest_and_largest_id_and_its_times() -> None:
    page = _page([_entry(5, 1.0), _entry(3, 2.0), _entry(4, 3.0, device="pi-2")])
    assert (page.id, page.last_id, page.first_at, page.last_at, page.rows) == ("r003", "r005", 1.0, 3.0, 3)
