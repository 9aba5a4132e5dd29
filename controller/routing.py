"""PURE: which device answers a request: feasible, then ranked by expected finish, with the reasons kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Candidate:
    """What routing needs to know of a device for one model."""

    device: str
    online: bool
    artifact: str | None
    """Digest of the artifact that serves the model there; None while none does."""
    outstanding: int
    """Requests and shards sent there and not yet answered."""
    queue: int
    """Queue length by the device's last load sample."""
    service_ms: float
    """Measured time of one request; 0 before the first."""
    cpu: float
    """Load of the host, 0 to 1."""
    draining: bool = False
    away: str = ""
    """Why it does not answer for a while, as it says itself: it makes room for another version."""
    version: int = 0
    """Of the artifact; 0 while none serves."""


@dataclass(frozen=True)
class Route:
    device: str
    artifact: str
    expected_ms: float
    """Expected time until the answer: what waits there times the service time, stretched by the host's load."""
    reason: str


@dataclass(frozen=True)
class NoRoute:
    reasons: tuple[str, ...]


# Differences below this are noise of the network: such devices count as equal and share the load.
_NOISE_MS = 1.0
# Before a device has answered once its service time is unknown; an optimistic guess lets it be tried.
_UNKNOWN_SERVICE_MS = 1.0


def choose(candidates: Iterable[Candidate], tried: frozenset[str], draw: float) -> Route | NoRoute:
    """Pick the device with the earliest expected finish; `draw` in [0, 1) breaks ties so that equals share the load.

    Devices in `tried` have failed this request already and come last: only when nothing else is feasible.
    """
    reasons = []
    feasible = []
    for candidate in candidates:
        reason = infeasible(candidate)
        if reason is None:
            feasible.append(candidate)
        else:
            reasons.append(f"{candidate.device}: {reason}")
    if not feasible:
        return NoRoute(tuple(reasons) or ("no device is enrolled",))
    fresh = [c for c in feasible if c.device not in tried] or feasible
    best = min(expected_ms(c) for c in fresh)
    equals = [c for c in fresh if expected_ms(c) <= best + _NOISE_MS]
    chosen = equals[int(draw * len(equals))]
    reason = f"{expected_ms(chosen):.2f} ms expected; {len(feasible)} devices feasible"
    return Route(chosen.device, chosen.artifact or "", expected_ms(chosen), reason)


def of_version(candidates: list[Candidate], only: int) -> list[Candidate]:
    """What the devices could do for one version of the model; `only` 0: for any."""
    if not only:
        return candidates
    return [c if c.version == only else replace(c, artifact=None) for c in candidates]


def expected_ms(candidate: Candidate) -> float:
    """Expected finish of a request sent now, in milliseconds."""
    service = candidate.service_ms or _UNKNOWN_SERVICE_MS
    waiting = max(candidate.outstanding, candidate.queue)
    return (waiting + 1) * service * (1 + candidate.cpu)


def infeasible(candidate: Candidate) -> str | None:
    """Why a device cannot answer; None where it can."""
    if not candidate.online:
        return "offline"
    if candidate.artifact is None:
        other = f"serves version {candidate.version}" if candidate.version else ""
        return candidate.away or other or "does not serve this model"
    if candidate.draining:
        return "draining"
    return None
