"""The log of requests: what waits, what is written, and that it stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import reads, records
from controller.inference import Trace
from controller.request_log import RequestLog
from controller.settings import Limits
from controller.store import Store
from controller.tick import Tick

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
    return [request.id for request in store.read_now(reads.every(records.Request, newest=True))]


def test_a_request_is_written_as_it_was_and_says_how_long_it_waited_for_that(store: Store) -> None:
    log = RequestLog(LIMITS)
    log.add(_trace(1), "the answer is kept", now=99.75)
    assert "r1" in log
    assert "r2" not in log
    _flush(log, store)
    assert "r1" not in log
    (found,) = store.read_now(reads.every(records.Request))
    told = (found.id, found.trace_id, found.model, found.version, found.device, found.state, found.attempts)
    assert told == ("r1", "t", "digits", 3, "pi-1", "answered", 2)
    assert found.received_at == 1.0
    assert [(step.step, step.ms) for step in found.steps] == [("user request", 0.5), ("store", 250.0)]
    assert found.steps[1].detail == "written with 1 in one batch; the answer is kept"


def test_the_log_keeps_the_newest(store: Store) -> None:
    log = RequestLog(LIMITS)
    for first in (0, 15):
        for number in range(first, first + 15):
            log.add(_trace(number), "", now=0.0)
        _flush(log, store)
    assert _ids(store) == [f"r{number}" for number in reversed(range(10, 30))]


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
    log = RequestLog(LIMITS)
    for number in range(100):
        log.add(_trace(number), "", now=0.0)
    _flush(log, store)
    assert _ids(store)[0] == "r99"
    assert 10 <= len(_ids(store)) <= 20
