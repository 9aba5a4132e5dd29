"""Requests to one device: alone they leave at once, beside others they are gathered, and none is kept back for long."""

from __future__ import annotations

import asyncio
from collections import Counter

from agent.contract.messages import Infer
from controller.departures import Departures

WAIT_S = 0.05


class Gate:
    """Departures over a count of what each device has."""

    def __init__(self) -> None:
        self.left: list[tuple[str, list[str]]] = []
        self.held: Counter[str] = Counter()
        self.departures = Departures(self._leave, lambda device: self.held[device], WAIT_S)

    def _leave(self, device: str, requests: list[Infer]) -> None:
        self.left.append((device, [request.request for request in requests]))

    def ask(self, *names: str, device: str = "pi") -> None:
        for name in names:
            self.held[device] += 1
            request = Infer(request=name, model="digits", artifact="a" * 64, ttl_ms=1.0, together=True)
            self.departures.add(device, request)

    def answer(self, count: int, device: str = "pi") -> None:
        for _ in range(count):
            self.held[device] -= 1
            self.departures.returned(device)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_lone_request_leaves_within_a_few_turns() -> None:
    async def story() -> None:
        gate = Gate()
        gate.ask("a")
        await turns()
        assert gate.left == [("pi", ["a"])]

    asyncio.run(story())


def test_requests_of_the_same_turn_leave_together_and_each_device_has_its_own() -> None:
    async def story() -> None:
        gate = Gate()
        gate.ask("a", "b")
        gate.ask("c", device="x86")
        await turns()
        assert gate.left == [("pi", ["a", "b"]), ("x86", ["c"])]

    asyncio.run(story())


def test_beside_others_a_few_wait_until_these_are_answered() -> None:
    async def story() -> None:
        gate = Gate()
        gate.ask("a", "b")
        await turns()
        gate.ask("c")
        gate.answer(1)
        await turns()
        assert len(gate.left) == 1
        gate.answer(1)
        await turns(1)
        gate.ask("d")  # Asked by who was answered: it comes along.
        await turns()
        assert gate.left[1:] == [("pi", ["c", "d"])]

    asyncio.run(story())


def test_as_many_as_are_under_way_leave_beside_them_at_once() -> None:
    async def story() -> None:
        gate = Gate()
        gate.ask("a", "b", "c")
        assert gate.left == [("pi", ["a", "b"])]
        gate.ask("d")
        assert gate.left[1:] == [("pi", ["c", "d"])]
        gate.ask("e", "f", "g")
        assert len(gate.left) == 2
        gate.ask("h")
        assert gate.left[2:] == [("pi", ["e", "f", "g", "h"])]

    asyncio.run(story())


def test_what_is_enough_does_not_wait_for_more() -> None:
    async def story() -> None:
        gate = Gate()
        gate.held["pi"] = 200
        gate.ask(*(str(n) for n in range(32)))
        assert [len(requests) for _, requests in gate.left] == [16, 16]

    asyncio.run(story())


def test_where_the_others_are_not_answered_nobody_waits_longer_than_the_limit() -> None:
    async def story() -> None:
        gate = Gate()
        gate.ask("a")
        await turns()
        gate.ask("b")
        await asyncio.sleep(WAIT_S / 5)
        assert len(gate.left) == 1
        await asyncio.sleep(2 * WAIT_S)
        assert gate.left[1:] == [("pi", ["b"])]

    asyncio.run(story())


def test_a_timer_of_those_that_have_left_does_not_hurry_the_next() -> None:
    async def story() -> None:
        gate = Gate()
        gate.held["pi"] = 1
        gate.ask("a")
        gate.answer(1)
        await turns()
        assert gate.left == [("pi", ["a"])]
        await asyncio.sleep(WAIT_S / 2)
        gate.ask("b")
        await asyncio.sleep(0.7 * WAIT_S)
        assert len(gate.left) == 1
        await asyncio.sleep(WAIT_S)
        assert gate.left[1:] == [("pi", ["b"])]

    asyncio.run(story())
