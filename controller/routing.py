"""PURE: which device answers a request: feasible, then the better of two by expected finish, with the reasons kept.

Two are drawn, and the one that would finish first is taken ("power of two choices"). What is known of a queue or a
processor is always a little old: were the best of all taken, everybody would run to the same device until its next
sample. With two devices, both are looked at; with more, the slowest is only taken when its queue is shorter.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """What routing needs to know of a device for one model."""

    device: str
    online: bool
    artifact: str | None
    """Digest of the artifact that serves the model there; None while none does."""
    outstanding: int
    """Requests sent there and not yet answered."""
    queue: int
    """Requests that wait there by the device's last load sample."""
    service_ms: float
    """Measured time of one request; 0 before the first."""
    cpu: float
    """Load of the host, 0 to 1."""
    draining: bool = False
    away: str = ""
    """Why it does not answer for a while, as it says itself: it makes room for another version."""
    version: int = 0
    """Of the artifact; 0 while none serves."""
    way_ms: float = 0.0
    """Measured time of the way there and back, without queue and compute; 0 before the first answer."""
    shard_ms: float = 0.0
    """Of a job's shard there: a request waits for one at most."""
    window: int = 256
    """Requests for this model that may be under way there."""
    held: int = 0
    """Of those, how many are."""
    together: int = 0
    """Requests that it takes in one message; 0: one."""


class Route(msgspec.Struct, frozen=True):
    device: str
    artifact: str
    expected_ms: float
    """Expected time until the answer: the way, a shard that runs, and what waits times the service time stretched by
    the host's load."""
    reason: str
    together: int = 0
    """Requests that the device takes in one message; 0: one."""


class NoRoute(msgspec.Struct, frozen=True):
    reasons: tuple[str, ...]
    full: bool = False
    """Devices could answer, but all have as many requests under way as they may."""


# Differences below this share are noise: the one drawn first is taken, so that equals share the load.
_NOISE = 0.1
# Before a device has answered once its service time is unknown; an optimistic guess lets it be tried.
_UNKNOWN_SERVICE_MS = 1.0


def choose(
    candidates: Iterable[Candidate], tried: frozenset[str], draw: float, *, admitted: bool = False
) -> Route | NoRoute:
    """Pick a device; `draw` in [0, 1) says which two are compared.

    Devices in `tried` have failed this request already and come last: only when nothing else is feasible. A request
    that was `admitted` before is not turned away by full windows: it is one of those that they have let in.
    """
    reasons = []
    feasible = []
    serving = 0
    for candidate in candidates:
        reason = infeasible(candidate)
        serving += reason is None
        if reason is None and candidate.held >= candidate.window and not admitted:
            reason = f"has {candidate.held} requests under way, and may have {candidate.window}"
        if reason is None:
            feasible.append(candidate)
        else:
            reasons.append(f"{candidate.device}: {reason}")
    if not feasible:
        return NoRoute(tuple(reasons) or ("no device is enrolled",), full=serving > 0)
    chosen = _better_of_two([c for c in feasible if c.device not in tried] or feasible, draw)
    expected = expected_ms(chosen)
    reason = f"{expected:.2f} ms expected; {len(feasible)} devices feasible"
    return Route(chosen.device, chosen.artifact or "", expected, reason, chosen.together)


def of_version(candidates: list[Candidate], only: int) -> list[Candidate]:
    """What the devices could do for one version of the model; `only` 0: for any."""
    if not only:
        return candidates
    return [c if c.version == only else msgspec.structs.replace(c, artifact=None) for c in candidates]


def expected_ms(candidate: Candidate) -> float:
    """Expected finish of a request sent now, in milliseconds."""
    service = candidate.service_ms or _UNKNOWN_SERVICE_MS
    waiting = max(candidate.outstanding, candidate.queue)
    return candidate.way_ms + candidate.shard_ms + (waiting + 1) * service * (1 + candidate.cpu)


def infeasible(candidate: Candidate) -> str | None:
    """Why a device cannot answer, however little it has to do; None where it can."""
    if not candidate.online:
        return "offline"
    if candidate.artifact is None:
        other = f"serves version {candidate.version}" if candidate.version else ""
        return candidate.away or other or "does not serve this model"
    if candidate.draining:
        return "draining"
    return None


def _better_of_two(feasible: list[Candidate], draw: float) -> Candidate:
    """`draw` numbers the ordered pairs of different devices, each as likely as any other."""
    count = len(feasible)
    if count == 1:
        return feasible[0]
    pairs = count * (count - 1)
    first, second = divmod(min(int(draw * pairs), pairs - 1), count - 1)
    one, other = feasible[first], feasible[second + (second >= first)]
    return other if expected_ms(other) < (1 - _NOISE) * expected_ms(one) else one
