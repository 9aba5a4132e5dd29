"""A candidate answers copies of live requests beside the serving version; its answers are compared and not sent."""

from __future__ import annotations

from collections.abc import Callable

from agent import frames, orders, sprt, swap
from agent.contract import manifest
from agent.contract.messages import ShadowResult
from agent.lines import Ask, Waiting
from agent.loop import Loop, Timer
from agent.serving import Member


class Shadow:
    """One copy at a time: what comes meanwhile is not compared, so that the candidate never holds anybody up.

    Tells Agreed or Refused once; Broken if a copy is not answered within `patience` seconds.
    """

    def __init__(
        self, loop: Loop, asked: manifest.Shadow, patience: float, member: Member, tell: Callable[[swap.Event], None]
    ) -> None:
        self._loop = loop
        self._asked = asked
        self._test = sprt.Test(good=asked.good, bad=asked.bad)
        self._patience = patience
        self._member = member
        self._tell = tell
        self._began = loop.now()
        self._requests = self._compared = self._agreed = 0
        self._busy: Timer | None = None
        self._bound: Timer | None = loop.call_later(asked.seconds, self._decide)

    @property
    def result(self) -> ShadowResult:
        took = round(self._loop.now() - self._began, 6)
        return ShadowResult(compared=self._compared, agreed=self._agreed, seconds=took)

    def copy(self, item: Waiting, computed: frames.Computed) -> None:
        """A request that the serving version has answered."""
        worker = self._member.worker
        if self._bound is None or self._busy is not None or worker is None or item.is_shard or not computed.outputs:
            return
        if isinstance(item.message, Ask) and item.message.question.version:
            return  # Meant for the other version, perhaps in numbers as that one stores them.
        self._requests += 1
        late = swap.Broken("device", f"as a shadow it answered nothing for {self._patience:g} s")
        self._busy = self._loop.call_later(self._patience, lambda: self._end_with(late))
        worker.compare(orders.compare(item, computed))

    def compared(self, found: frames.Compared) -> None:
        if self._busy is not None:
            self._busy.cancel()
            self._busy = None
        if self._bound is None:
            return
        self._compared += found.rows
        self._agreed += found.agreed
        if self._requests >= self._asked.requests:
            self._decide()
        elif (verdict := sprt.verdict(self._test, self._agreed, self._compared)) != "go on":
            self._conclude(verdict)

    def end(self) -> None:
        for timer in (self._busy, self._bound):
            if timer is not None:
                timer.cancel()
        self._busy = self._bound = None

    def _decide(self) -> None:
        """No more comparisons are allowed."""
        self._conclude(sprt.leaning(self._test, self._agreed, self._compared))

    def _conclude(self, verdict: sprt.Verdict) -> None:
        if verdict == "agrees":
            self._end_with(swap.Agreed())
            return
        counted = f"{self._agreed} of {self._compared} live answers"
        self._end_with(swap.Refused("user", f"as a shadow it agrees with what serves on only {counted}", "shadow"))

    def _end_with(self, event: swap.Event) -> None:
        self.end()
        self._tell(event)
