"""PURE: whose bytes move when a job's inputs go to devices by blob, and which did not have to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Leg:
    """A blob that a job sends to a device. `gone`: bytes of it that left, before packing."""

    job: str
    gone: int = 0


@dataclass(frozen=True)
class Moved:
    """Bytes. `saved_by_cache`: that the device had already. `saved_by_packing`: that were left out on the way."""

    moved: int = 0
    saved_by_cache: int = 0
    saved_by_packing: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.moved + other.moved,
            self.saved_by_cache + other.saved_by_cache,
            self.saved_by_packing + other.saved_by_packing,
        )


class Legs:
    """What leaves here is counted when it leaves, so that also what a device asked for and never used is. What a device
    fetched otherwise, by HTTP, counts by its own word."""

    def __init__(self) -> None:
        self._legs: dict[tuple[str, str], _Leg] = {}

    def began(self, job: str, device: str, digest: str) -> None:
        """The device is told to use this blob. Where it is on its way there for another job, that one pays."""
        self._legs.setdefault((device, digest), _Leg(job))

    def sent(self, device: str, digest: str, size: int, wire: int) -> tuple[str, Moved] | None:
        """`size` bytes of the blob left as `wire` bytes: for which job; None where it is none's."""
        leg = self._legs.get((device, digest))
        if leg is None:
            return None
        leg.gone += size
        return leg.job, Moved(moved=wire, saved_by_packing=size - wire)

    def used(self, job: str, device: str, digest: str, size: int, fetched: int) -> Moved:
        """The device answered the shard whose inputs are this blob of `size` bytes, and `fetched` so many for it."""
        leg = self._legs.get((device, digest))
        if leg is None or leg.job != job:
            return Moved(saved_by_cache=size)
        del self._legs[device, digest]
        return Moved(moved=max(0, fetched - leg.gone), saved_by_cache=max(0, size - max(fetched, leg.gone)))

    def ended(self, job: str) -> None:
        self._legs = {key: leg for key, leg in self._legs.items() if leg.job != job}
