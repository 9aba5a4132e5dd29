"""Requests on their way out: those for a device that has some already wait for these to be answered, and leave together.

Each message wakes a broker and two processes on the device, and again on its way back: for a small model that is most
of what a request costs. So while a device is busy with what left before, what comes meanwhile is gathered, as Nagle's
algorithm (RFC 896) gathers bytes: without load a request leaves at once, under load messages grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.contract.messages import Infer

# Turns of the loop between the wish to leave and leaving: who asks at the same time is heard meanwhile. After answers
# a few more, since those who got them ask again.
_FIRST_TURNS = 2
_NEXT_TURNS = 4
_WORTH = 4
"""So many are worth a message of their own, even while others are under way."""


@dataclass
class _Gate:
    """What waits for one device."""

    waiting: list[Infer] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    leaving: bool = False


class Departures:
    """Owned by the event loop."""

    def __init__(self, leave: Callable[[str, list[Infer]], None], outstanding: Callable[[str], int], wait_s: float):
        """`leave` sends requests to a device; `outstanding`: how many it has not answered, those that wait here
        included; none waits longer than `wait_s`."""
        self._leave = leave
        self._outstanding = outstanding
        self._wait_s = wait_s
        self._gates: dict[str, _Gate] = {}

    def add(self, device: str, request: Infer) -> None:
        """It is outstanding already."""
        gate = self._gates.get(device)
        if gate is None:
            gate = self._gates[device] = _Gate()
        gate.waiting.append(request)
        away = self._outstanding(device) - len(gate.waiting)
        if away <= 0 or len(gate.waiting) >= max(away, _WORTH):
            self._soon(device, gate, _FIRST_TURNS)
        elif gate.timer is None:
            gate.timer = asyncio.get_running_loop().call_later(self._wait_s, self._go, device)

    def returned(self, device: str) -> None:
        """One that had left is answered, or will not be."""
        gate = self._gates.get(device)
        if gate is not None and gate.waiting and self._outstanding(device) <= len(gate.waiting):
            self._soon(device, gate, _NEXT_TURNS)

    def _soon(self, device: str, gate: _Gate, turns: int) -> None:
        if not gate.leaving:
            gate.leaving = True
            self._in_turns(device, turns)

    def _in_turns(self, device: str, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._in_turns, device, turns - 1)
        else:
            self._go(device)

    def _go(self, device: str) -> None:
        gate = self._gates.pop(device, None)
        if gate is None:
            return
        if gate.timer is not None:
            gate.timer.cancel()
        if gate.waiting:
            self._leave(device, gate.waiting)
