"""A message counts once, however often and in whatever order the broker delivers it, and memory stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.messages import ControllerStatus, SeenWindow


def _message(boot: str, seq: int) -> ControllerStatus:
    return ControllerStatus(online=True, boot=boot, seq=seq)


@given(numbers=st.lists(st.integers(1, 60), max_size=200))
def test_each_number_is_news_exactly_once_inside_the_window(numbers: list[int]) -> None:
    window = SeenWindow(width=64)
    assert sum(window.is_new(_message("b", n)) for n in numbers) == len(set(numbers))


@given(events=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=400))
def test_nothing_is_news_twice_whatever_the_order(events: list[tuple[str, int]]) -> None:
    window = SeenWindow(width=8, boots=3)
    news = [event for event in events if window.is_new(_message(*event))]
    assert len(news) == len(set(news))


def test_a_new_boot_starts_its_own_count() -> None:
    window = SeenWindow()
    assert window.is_new(_message("first", 5))
    assert window.is_new(_message("second", 5))
    assert not window.is_new(_message("first", 5))


@pytest.mark.parametrize(("seq", "news"), [(1, False), (900, False), (901, True), (999, True), (1001, True)])
def test_what_is_older_than_the_window_is_not_news(seq: int, news: bool) -> None:
    window = SeenWindow(width=100)
    assert window.is_new(_message("b", 1000))
    assert window.is_new(_message("b", seq)) is news


def test_a_long_life_keeps_no_more_numbers_than_twice_the_window() -> None:
    window = SeenWindow(width=100, boots=2)
    for n in range(1, 10_000):
        window.is_new(_message("b", n))
    for boot in range(50):
        window.is_new(_message(f"boot-{boot}", 1))
    kept = window._seen
    assert len(kept) <= 2
    assert all(len(numbers) <= 200 for _, numbers in kept.values())
