"""What one swap costs, noted while it happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from agent.contract.messages import ShadowResult, SwapRecord, WatchResult, Window
from agent.fetch import Outcome as Fetched
from agent.latencies import Latencies
from agent.pointers import Pointer
from agent.swap import Swap

Outcome = Literal["committed", "refused", "rolled_back", "failed"]


class SwapLog:
    """`began` and all times in monotonic seconds; `downtime` as counted by the serving side at that moment."""

    def __init__(self, began: float, downtime: float) -> None:
        self._began = began
        self._downtime = downtime
        self._way: Literal["mqtt", "http"] = "mqtt"
        self._bytes = 0
        self._held = True
        self._forked: float | None = None
        self.old: Pointer | None = None
        self.watch: WatchResult | None = None
        self.shadow: ShadowResult | None = None
        self.memory_peak_mb = 0.0

    def fetched(self, outcome: Fetched) -> None:
        self._bytes += outcome.arrived
        self._held = self._held and outcome.held
        if not outcome.held:
            self._way = outcome.way

    def weighed(self, each_mb: Sequence[float]) -> None:
        """What old and new workers took, each at its probe; 0 where that is not known. To add up the pages of a process
        that serves stops it for milliseconds."""
        self.memory_peak_mb = sum(each_mb) if all(each_mb) else 0.0

    def staged(self, now: float) -> None:
        """The candidate is forked, or the old worker leaves before it."""
        if self._forked is None:
            self._forked = now

    def record(
        self,
        swap: Swap,
        outcome: Outcome,
        gone: float,
        now: float,
        downtime: float,
        latencies: Latencies,
    ) -> SwapRecord:
        """The whole record; `gone` is when the last old worker was."""
        if self.old is not None and not swap.alone:
            now = gone  # What was served since is no part of the swap.
        forked = self._forked
        during = latencies.window(forked, now) if forked is not None else Window()
        control = latencies.window(2 * forked - now, forked) if forked is not None else Window()
        return SwapRecord(
            model=swap.target.model,
            to_version=swap.target.version,
            to_artifact=swap.target.artifact,
            from_version=self.old.wanted.version if self.old else None,
            from_artifact=self.old.wanted.artifact if self.old else None,
            outcome=outcome,
            reason=swap.reason[:4000],
            cause=swap.cause,
            way="held" if self._held else self._way,
            fetched_bytes=self._bytes,
            fetch_s=round((forked or now) - self._began, 6),
            total_s=round(now - self._began, 6),
            gap_ms=round((downtime - self._downtime) * 1000, 3),
            probe=swap.probe,
            control=control,
            during=during,
            watch=self.watch,
            shadow=self.shadow,
            alone=swap.alone,
            memory_peak_mb=round(self.memory_peak_mb, 3),
            who="" if outcome == "committed" else swap.who,
        )
