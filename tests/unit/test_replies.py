"""What a device says about a shard that it could not compute."""

from __future__ import annotations

import pytest

from agent import frames
from agent.contract.messages import Fault, Result, Work
from agent.lines import Waiting
from agent.replies import reply

WORK = Work(job="j", shard=3, attempt=2, ttl_ms=1000.0, model="digits", artifact="a" * 64)
FAULT = Fault(who="device", message="the queue of this device is full")


@pytest.mark.parametrize(
    ("sent", "fault", "turned_down"), [(0.0, FAULT, True), (5.0, FAULT, False), (5.0, None, False)]
)
def test_a_shard_that_no_worker_got_was_turned_down(sent: float, fault: Fault | None, turned_down: bool) -> None:
    item = Waiting(WORK, received=4.0, expires=9.0, sent=sent)
    result = reply(item, frames.Computed(id=1, fault=fault), None, now=6.0)
    assert isinstance(result, Result)
    assert (result.shard, result.attempt, result.turned_down) == (3, 2, turned_down)


def test_rows_that_a_disk_lost_are_not_the_shards_fault() -> None:
    item = Waiting(WORK, received=4.0, expires=9.0, sent=5.0)
    result = reply(item, frames.Computed(id=1, fault=FAULT, damaged="b" * 64), None, now=6.0)
    assert isinstance(result, Result)
    assert result.turned_down
