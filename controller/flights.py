"""PURE: the attempts that are under way, by device and by caller. Moments are arguments, in monotonic seconds.

An attempt that its request has given up still counts: the device holds it until it answers, is lost, or is not believed
any more. So a device that hangs fills its window and gets nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.admission import AdmissionLimits, Pace

# Devices and models of which the pace is remembered.
_PACES = 20_000


@dataclass(eq=False, slots=True)
class Flight:
    """One attempt of one request at one device. `landed` is told once how it ended, unless nobody waits any more."""

    id: str
    device: str
    model: str
    sent: float
    landed: Callable[[object], None] | None
    artifact: str = ""
    blob: str = ""
    """Digest of its inputs, where they are too large for a message."""
    pace: Pace = field(init=False)
    """The device's for the model, once it has begun."""
    there: int = 0
    """How many requests for the model were at the device with it."""


class Flights:
    def __init__(self, limits: AdmissionLimits, give_up_s: float) -> None:
        """`give_up_s`: an attempt that is older is not under way any more."""
        self._limits = limits
        self._give_up_s = give_up_s
        self._flying: dict[str, Flight] = {}
        self._at: Counter[str] = Counter()
        self._paces: dict[tuple[str, str], Pace] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def outstanding(self, device: str) -> int:
        return self._at[device]

    def awaited(self, device: str) -> int:
        """Attempts there whose requests still wait for them."""
        return sum(f.device == device and f.landed is not None for f in self._flying.values())

    def pace(self, device: str, model: str) -> Pace:
        key = (device, model)
        found = self._paces.get(key)
        if found is None:
            if len(self._paces) >= _PACES:
                idle = [known for known, pace in self._paces.items() if not pace.held]
                for known in idle[: _PACES // 2]:
                    del self._paces[known]
            found = self._paces[key] = Pace(self._limits)
        return found

    def of(self, attempt: str) -> Flight | None:
        """The attempt, while it is under way."""
        return self._flying.get(attempt)

    def begin(self, flight: Flight) -> None:
        self._flying[flight.id] = flight
        self._at[flight.device] += 1
        flight.pace = self.pace(flight.device, flight.model)
        flight.there = flight.pace.sent()

    def answered(self, attempt: str, device: str, now: float, spent: tuple[float, float] | None) -> Flight | None:
        """The attempt that this answers; None for one that is late, repeated or foreign. `spent`: milliseconds in the
        device's queue and in its worker; None if it computed nothing."""
        flight = self._flying.get(attempt)
        if flight is None or flight.device != device:
            return None
        pace = flight.pace
        if spent is None:
            pace.gone()
        else:
            pace.answered((now - flight.sent) * 1000, *spent, flight.there)
            pace.believed.answered(spent[1], flight.artifact, now)
        self._remove(flight)
        return flight

    def end(self, flight: Flight) -> None:
        """Nothing will come of it any more. May run twice."""
        if self._flying.get(flight.id) is flight:
            flight.pace.gone()
            self._remove(flight)

    def lost(self, device: str) -> list[Flight]:
        """All that a device held when it went away."""
        held = [flight for flight in self._flying.values() if flight.device == device]
        for flight in held:
            self.end(flight)
        return held

    def forget_old(self, now: float) -> None:
        """They were begun in this order."""
        while self._flying:
            flight = next(iter(self._flying.values()))
            if now - flight.sent < self._give_up_s:
                return
            self.end(flight)

    def _remove(self, flight: Flight) -> None:
        del self._flying[flight.id]
        self._at[flight.device] -= 1
        if not self._at[flight.device]:
            del self._at[flight.device]


class Callers:
    """Who has how many requests in the house."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, caller: str) -> int:
        return self._held[caller]

    def enter(self, caller: str) -> None:
        self._held[caller] += 1

    def leave(self, caller: str) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
