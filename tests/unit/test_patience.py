"""One timer for many waits: each ends when it is told to, or when its time is over."""

from __future__ import annotations

import asyncio

import pytest

from controller.patience import Patience, end


async def wait(patience: Patience, wait_s: float) -> None:
    wake = patience.begin(asyncio.get_running_loop().time() + wait_s)
    try:
        await wake
    finally:
        patience.over(wake)


@pytest.mark.parametrize("wait_s", [0.05, 0.3])
def test_a_wait_that_nobody_ends_is_over_in_time(wait_s: float) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.wait_for(wait(Patience(), wait_s), 5)
        assert loop.time() - began >= wait_s - 0.001

    asyncio.run(story())


def test_a_wait_ends_at_once_when_it_is_told_to() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        patience = Patience()
        wake = patience.begin(loop.time() + 60.0)
        loop.call_soon(end, wake)
        await asyncio.wait_for(wake, 5)
        patience.over(wake)
        end(wake)  # Twice is no harm.

    asyncio.run(story())


def test_waits_of_all_lengths_end_in_their_order_and_one_that_is_given_up_disturbs_nobody() -> None:
    async def story() -> None:
        patience = Patience()
        over: list[float] = []

        async def one(wait_s: float) -> None:
            await wait(patience, wait_s)
            over.append(wait_s)

        given_up = asyncio.create_task(one(60.0))
        waits = [asyncio.create_task(one(wait_s)) for wait_s in (0.45, 0.25, 0.05, 0.35)]
        await asyncio.sleep(0.1)
        given_up.cancel()
        await asyncio.wait_for(asyncio.gather(*waits), 5)
        assert over == [0.05, 0.25, 0.35, 0.45]
        assert given_up.cancelled()

    asyncio.run(story())
