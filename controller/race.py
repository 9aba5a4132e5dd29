"""One request on its way: where it is tried, what came back, and the wait for the next news."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.contract.messages import Answer
from controller.flights import Flight
from controller.patience import Patience, Wake, end
from controller.routing import Route

Landed = Answer | str
"""How an attempt ended: with an answer, or why there is none."""


@dataclass
class Race:
    """Attempts of one request. The first good answer counts; attempts that it beat are told to nobody."""

    patience: Patience
    flying: dict[str, tuple[Flight, Route]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    """Devices that failed it, or are late."""
    _news: list[tuple[Flight, Landed]] = field(default_factory=list)
    _wake: Wake | None = None

    def add(self, flight: Flight, route: Route) -> None:
        flight.landed = lambda how: self._landed(flight, how)
        self.flying[flight.id] = (flight, route)

    @property
    def oldest(self) -> Flight:
        return next(iter(self.flying.values()))[0]

    @property
    def newest(self) -> Flight:
        return next(reversed(self.flying.values()))[0]

    async def next(self, until: float) -> tuple[Flight, Route, Landed] | None:
        """What came of an attempt; None if nothing did until then, in monotonic seconds as the event loop counts."""
        if not self._news:
            self._wake = wake = self.patience.begin(until)
            try:
                await wake
            finally:
                self.patience.over(wake)
                self._wake = None
        if not self._news:
            return None
        flight, how = self._news.pop(0)
        _, route = self.flying.pop(flight.id)
        return flight, route, how

    def over(self) -> None:
        """Nobody waits any more: what still flies lands without a word."""
        for flight, _ in self.flying.values():
            flight.landed = None

    def _landed(self, flight: Flight, how: object) -> None:
        assert isinstance(how, Answer | str)
        self._news.append((flight, how))
        if self._wake is not None:
            end(self._wake)
