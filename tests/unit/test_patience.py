"""One timer for many waits: each ends when it is told to, or about when its time is over."""

from __future__ import annotations

import asyncio

import pytest

from controller.patience import Patience, end


@pytest.mark.parametrize("wait_s", [0.05, 0.3])
def test_a_wait_that_nobody_ends_is_over_in_time(wait_s: float) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.wait_for(Patience().wait(loop.create_future(), began + wait_s), 5)
        assert loop.time() - began >= wait_s - 0.001

    asyncio.run(story())


@pytest.mark.parametrize("wait_s", [0.1, 60.0])
def test_a_wait_ends_at_once_when_it_is_told_to(wait_s: float) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        patience, wake = Patience(), loop.create_future()
        loop.call_soon(end, wake)
        await asyncio.wait_for(patience.wait(wake, loop.time() + wait_s), 5)
        end(wake)  # Twice is no harm.

    asyncio.run(story())


def test_waits_of_all_lengths_end_in_their_order_and_one_that_is_given_up_disturbs_nobody() -> None:
    async def story() -> None:
        loop, patience = asyncio.get_running_loop(), Patience()
        over: list[float] = []

        async def one(wait_s: float) -> None:
            await patience.wait(loop.create_future(), loop.time() + wait_s)
            over.append(wait_s)

        given_up = asyncio.create_task(one(60.0))
        waits = [asyncio.create_task(one(wait_s)) for wait_s in (0.45, 0.25, 0.05, 0.35)]
        await asyncio.sleep(0.1)
        given_up.cancel()
        await asyncio.wait_for(asyncio.gather(*waits), 5)
        assert over == [0.05, 0.25, 0.35, 0.45]
        assert given_up.cancelled()

    asyncio.run(story())
