"""What the slots of one agent share, and whom they tell."""

from __future__ import annotations

from typing import Protocol

import msgspec

from agent import frames, free
from agent.blobs import Blobs
from agent.contract.messages import SwapRecord
from agent.fetch import Fetcher
from agent.keeper import Keeper
from agent.lines import Waiting
from agent.loop import Loop
from agent.serving import Member
from agent.settings import Limits, Simulate
from agent.standing import Standing
from agent.workers import Workers


class Ground(msgspec.Struct):
    """What every slot of an agent stands on."""

    loop: Loop
    workers: Workers
    blobs: Blobs
    fetcher: Fetcher
    keeper: Keeper
    limits: Limits
    standing: Standing
    simulate: Simulate = Simulate()

    @property
    def extra_ms_per_row(self) -> float:
        return self.simulate.extra_ms_per_row

    def free_mb(self) -> float:
        """Memory that can still be had, or seems so."""
        simulated = self.simulate.free_memory_mb
        return free.free_mb() if simulated is None else simulated


class Owner(Protocol):
    """Who is told what a slot does."""

    def report(self, record: SwapRecord | None) -> None: ...

    def take_shard(self, key: tuple[str, int, int]) -> bool: ...

    def answered(self, item: Waiting, computed: frames.Computed, member: Member | None) -> None: ...
