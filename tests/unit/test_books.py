"""Finished requests are entered some at a time, and whoever looks sees all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.contract.tensors import Tensor
from controller import answer_rows, request_rows
from controller.answers import Answers
from controller.books import Books
from controller.pages import Search
from controller.policies import Policies
from controller.policy import Policy
from controller.request_log import RequestLog
from controller.settings import Limits
from controller.store import Store
from controller.tick import Tick
from controller.trace import Trace


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


class Desk:
    def __init__(self) -> None:
        self.took: list[float] = []
        answers = Answers(Policies(Policy()), Limits(), lambda: 0.0)
        self.books = Books(answers, RequestLog(Limits()), lambda _device, _artifact, ms: self.took.append(ms))

    def finish(self, count: int, size: int = 4, state: str = "answered") -> None:
        for number in range(count):
            trace = Trace(f"q{number:02d}", "t", "digits", float(number), version=3, artifact="a" * 64, device="pi")
            trace.asks((Tensor("x", "uint8", (1, size), b"\0" * size),))
            trace.attempts, trace.service_ms, trace.state = 1, 2.0, state
            self.books.add(trace)


def test_requests_are_entered_some_at_a_time_and_large_ones_at_once() -> None:
    desk = Desk()
    desk.finish(15)
    assert desk.took == []
    desk.finish(1)
    assert desk.took == [2.0] * 16
    desk.finish(1, size=300 * 1024)
    assert len(desk.took) == 17


def test_statistics_and_the_log_know_of_every_request() -> None:
    desk = Desk()
    desk.finish(3)
    desk.finish(2, state="failed")
    (told,) = desk.books.statistics.of("digits", {3})
    assert (told.inference_stats.success.count, told.inference_stats.fail.count) == (3, 2)
    desk.finish(1)
    assert desk.books.may_hold("q00")
    assert not desk.books.may_hold("q99")


def test_a_flush_writes_all_of_them_with_their_answers(store: Store) -> None:
    desk = Desk()
    desk.finish(3)
    tick = Tick(100.0, 100.0)
    desk.books.flush(tick)
    store.commit_now(*tick.writes)
    assert len(store.read_now(request_rows.page(Search(), 10))) == 3
    assert len(store.read_now(answer_rows.page(Search(), 10))) == 3
    assert desk.books.dropped == 0
