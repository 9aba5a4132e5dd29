"""When a candidate may stand behind."""

from __future__ import annotations

import os

import pytest

from agent import priority

CAPABLE = "Name:\tx\nCapEff:\t000001ffffffffff\n"
POOR = "Name:\tx\nCapEff:\t0000000000000000\n"


@pytest.mark.parametrize(
    ("status", "limit", "can"),
    [(CAPABLE, 0, True), (POOR, 0, False), (POOR, 20, True), (POOR, 19, False), ("", 0, False)],
)
def test_only_who_can_come_back_stands_behind(status: str, limit: int, can: bool) -> None:
    assert priority.can_return(status, limit) is can


def test_a_process_that_stood_behind_runs_like_before() -> None:
    me = os.getpid()
    before = os.sched_getscheduler(me)
    if priority.may_step_back():
        priority.step_back()
        assert os.sched_getscheduler(me) == os.SCHED_IDLE
        priority.step_forward(me)
    assert os.sched_getscheduler(me) == before
