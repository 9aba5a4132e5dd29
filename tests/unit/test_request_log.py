"""The log of requests: what waits, what is written, and that it stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import request_rows
from controller.pages import MOST_ROWS, Search
from controller.request_log import RequestLog
from controller.settings import Limits
from controller.store import Store
from controller.tick import Tick
from controller.trace import Trace

LIMITS = Limits(requests_kept=20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


def _trace(number: int) -> Trace:
    trace = Trace(f"r{number}", "t", "digits", float(number))
    trace.state, trace.attempts, trace.device, trace.version = "answered", 2, "pi-1", 3
    trace.step("user request", "48 bytes of tensors", 0.5)
    return trace


def _flush(log: RequestLog, store: Store, now: float = 100.0) -> None:
    tick = Tick(now, now)
    log.flush(tick)
    store.commit_now(*tick.writes)
    for action in tick.actions:
        action()


def _ids(store: Store) -> list[str]:
    return [request.id for request in store.read_now(request_rows.page(Search(), 1000))]


def test_a_request_is_written_as_it_was_and_says_how_long_it_waited_for_that(store: Store) -> None:
    log = RequestLog(LIMITS)
    log.add(_trace(1), "the answer is kept", now=99.75)
    assert "r1" in log
    assert "r2" not in log
    _flush(log, store)
    assert "r1" not in log
    (found,) = store.read_now(request_rows.page(Search(), 10))
    assert store.read_now(request_rows.find("r1")) == found
    assert store.read_now(request_rows.find("r2")) is None
    told = (found.id, found.trace_id, found.model, found.version, found.device, found.state, found.attempts)
    assert told == ("r1", "t", "digits", 3, "pi-1", "answered", 2)
    assert found.received_at == 1.0
    store_step = ("store", 250.0, "written with 1 in one batch; the answer is kept")
    assert found.steps == [("user request", 0.5, "48 bytes of tensors"), store_step]


def test_the_log_keeps_the_newest_and_less_than_a_page_more(store: Store) -> None:
    log = RequestLog(LIMITS)
    for number in range(5 * 15):
        log.add(_trace(number), "", now=0.0)
        if number % 15 == 14:
            _flush(log, store)
    # Pages of 15: without one more, fewer than the 20 that are to be kept would be left.
    assert _ids(store) == [f"r{number}" for number in reversed(range(45, 75))]


def test_a_log_that_is_full_of_whole_pages_takes_no_more_than_one_above_its_limit(store: Store) -> None:
    log = RequestLog(Limits(requests_kept=600))
    for number in range(5 * 400):
        log.add(_trace(number), "", now=0.0)
        if number % 400 == 399:
            _flush(log, store)
    found = _ids(store)
    assert found == [f"r{number}" for number in reversed(range(2000 - len(found), 2000))]
    assert 600 <= len(found) < 600 + MOST_ROWS


def test_requests_are_found_by_model_and_by_trace(store: Store) -> None:
    log = RequestLog(LIMITS)
    for number, (model, trace_id) in enumerate((("a", "t1"), ("b", "t1"), ("a", "t2"), ("a", "t11"))):
        trace = _trace(number)
        trace.model, trace.trace_id = model, trace_id
        log.add(trace, "", now=0.0)
    _flush(log, store)

    def found(**search: str) -> list[str]:
        return [request.id for request in store.read_now(request_rows.page(Search(**search), 10))]  # type: ignore[arg-type]

    assert found(trace_id="t1") == ["r1", "r0"]
    assert found(model="a") == ["r3", "r2", "r0"]
    assert found(model="a", trace_id="t1") == ["r0"]
    assert found(model="c") == []


def test_what_could_not_be_written_waits_and_is_written_once(store: Store) -> None:
    log = RequestLog(LIMITS)
    log.add(_trace(1), "", now=0.0)
    lost = Tick(1.0, 1.0)
    log.flush(lost)  # Its commit fails: what was to happen after it never does.
    log.add(_trace(2), "", now=1.0)
    store.commit_now(*lost.writes)  # It was written after all.
    _flush(log, store)
    assert _ids(store) == ["r2", "r1"]


def test_while_the_disk_does_not_keep_up_the_oldest_go(store: Store) -> None:
    log = RequestLog(Limits(requests_kept=2 * MOST_ROWS))
    for number in range(10 * MOST_ROWS):
        log.add(_trace(number), "", now=0.0)
        assert log.rows <= 3 * MOST_ROWS
    _flush(log, store)
    assert log.rows == 0
    assert _ids(store)[0] == f"r{10 * MOST_ROWS - 1}"
    assert 2 * MOST_ROWS <= len(_ids(store)) < 3 * MOST_ROWS
