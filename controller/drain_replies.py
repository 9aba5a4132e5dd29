"""What the REST API answers about devices that are taken out of service."""

from __future__ import annotations

from typing import Literal

from controller.replies import Reply

DutyState = Literal["serving", "draining", "drained"]


class Duty(Reply, frozen=True, kw_only=True):
    """Does a device get work, and can it be switched off? `drained`: it is cordoned and holds nothing any more."""

    device: str
    state: DutyState
    online: bool = False
    requests: int = 0
    """Sent there and not answered."""
    shards: int = 0
    """Of jobs, leased there and not answered."""
    moved: int = 0
    """Shards that this call took back from it."""
    alone: tuple[str, ...] = ()
    """Models that no other device serves: requests for them fail while this one is cordoned."""
    bindings: tuple[str, ...] = ()
    """That it answers until it is switched off."""
