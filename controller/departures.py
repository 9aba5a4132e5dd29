"""Requests on their way out: those for a device that has some already are gathered, and leave together.

Each message wakes a broker and two processes on the device, and again on its way back: for a small model that is most
of what a request costs. So while a device has requests that left before, what comes is gathered, as Nagle's algorithm
(RFC 896) gathers bytes: without load a request leaves at once, under load messages grow by themselves. As many as are
under way leave without waiting: one half is computed while the other is received and answered.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.contract.messages import Infer
from controller.alarm import Alarm

# Turns of the loop between the wish to leave and leaving: who asks at the same time is heard meanwhile. After answers
# they are more, since those who got them ask again.
_FIRST_TURNS = 2
_NEXT_TURNS = 4
# So many are worth a message of their own while others are under way; and more than the latter do not gain by waiting.
_WORTH = 2
_ENOUGH = 16


@dataclass(eq=False)
class _Gate:
    """What waits for one device."""

    waiting: list[Infer] = field(default_factory=list)
    until: float = math.inf
    """When it opens at the latest, by the loop's clock."""
    opening: bool = False


class Departures:
    """Owned by the event loop."""

    def __init__(self, leave: Callable[[str, list[Infer]], None], outstanding: Callable[[str], int], wait_s: float):
        """`leave` sends requests to a device; `outstanding`: how many it has not answered, those that wait here
        included; none waits longer than `wait_s`."""
        self._leave = leave
        self._outstanding = outstanding
        self._wait_s = wait_s
        self._gates: dict[str, _Gate] = {}
        self._alarm = Alarm(self._look)

    def add(self, device: str, request: Infer) -> None:
        """It is outstanding already."""
        gate = self._gates.get(device)
        if gate is None:
            gate = self._gates[device] = _Gate()
        gate.waiting.append(request)
        count = len(gate.waiting)
        away = self._outstanding(device) - count
        if count >= min(max(away, _WORTH), _ENOUGH):
            self._go(device, gate)
        elif away <= 0:
            self._go_in(device, gate, _FIRST_TURNS)
        elif gate.until == math.inf:
            gate.until = asyncio.get_running_loop().time() + self._wait_s
            self._alarm.by(gate.until)

    def returned(self, device: str) -> None:
        """One that had left is answered, or will not be."""
        gate = self._gates.get(device)
        if gate is not None and self._outstanding(device) <= len(gate.waiting):
            self._go_in(device, gate, _NEXT_TURNS)

    def _go_in(self, device: str, gate: _Gate, turns: int) -> None:
        if not gate.opening:
            gate.opening = True
            self._count_down(device, gate, turns)

    def _count_down(self, device: str, gate: _Gate, turns: int) -> None:
        if self._gates.get(device) is not gate:
            return  # They left meanwhile.
        if turns:
            asyncio.get_running_loop().call_soon(self._count_down, device, gate, turns - 1)
        else:
            self._go(device, gate)

    def _look(self, now: float) -> float:
        for device, gate in list(self._gates.items()):
            if gate.until <= now:
                self._go(device, gate)
        return min((gate.until for gate in self._gates.values()), default=math.inf)

    def _go(self, device: str, gate: _Gate) -> None:
        del self._gates[device]
        self._leave(device, gate.waiting)
