"""PURE: how long a request takes at a device, by its last answers and by how old these are.

A device that slows down is asked less, so less is heard of it: were the last word believed for ever, it would never
get its share back. So what was measured fades, towards the best that the device has shown, and it is asked again; one
answer after a while says nearly all.
"""

from __future__ import annotations

import math

# Of one answer that closely follows another.
_WEIGHT = 0.2
# What was measured so long ago is half believed, and an answer after as long counts by half.
_HALF_S = 2.0


class Believed:
    """Service time at one device for one model. Moments in monotonic seconds."""

    def __init__(self) -> None:
        self._artifact = ""
        self._ms = 0.0
        self._best_ms = 0.0
        self._at = 0.0

    def answered(self, service_ms: float, artifact: str, now: float) -> None:
        """An answer of `artifact` spent `service_ms` in the worker."""
        if artifact != self._artifact or not self._ms:
            self._artifact, self._ms, self._best_ms = artifact, service_ms, service_ms
        else:
            weight = max(_WEIGHT, 1 - _faded(now - self._at))
            self._ms += weight * (service_ms - self._ms)
            self._best_ms = min(self._best_ms, self._ms)
        self._at = now

    def ms(self, artifact: str, now: float) -> float:
        """What to expect of a request now; 0 where nothing was measured of this artifact."""
        if artifact != self._artifact:
            return 0.0
        return self._best_ms + _faded(now - self._at) * (self._ms - self._best_ms)


def _faded(age_s: float) -> float:
    return math.exp2(-max(0.0, age_s) / _HALF_S)
