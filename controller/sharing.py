"""PURE: how jobs share devices: by priority first, in equal parts among equals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A job and the devices that may compute for it. `waiting`: shards of it are not handed out yet."""

    job: str
    priority: int
    waiting: bool
    devices: frozenset[str]


def fractions(claims: Iterable[Claim]) -> dict[str, dict[str, float]]:
    """By job and device, which part of the device's queue the job may fill, 0 to 1.

    On each device those with the highest priority among the waiting share it; others get nothing there until these
    wait no more. A job that has handed out everything takes no part: it may only copy its stragglers.
    """
    claims = list(claims)
    shares: dict[str, dict[str, float]] = {}
    for claim in claims:
        shares[claim.job] = {device: _part(claim, device, claims) for device in claim.devices}
    return shares


def _part(claim: Claim, device: str, claims: list[Claim]) -> float:
    rivals = [other for other in claims if other.waiting and device in other.devices]
    first = max((other.priority for other in rivals), default=claim.priority)
    if claim.priority < first:
        return 0.0
    if not claim.waiting:
        return 1.0
    return 1.0 / sum(1 for other in rivals if other.priority == first)
