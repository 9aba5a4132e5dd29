"""Requests and shards on their way to a model's line; inputs that travel as a blob are fetched first."""

from __future__ import annotations

from collections.abc import Callable

from agent import frames
from agent.contract.manifest import FileRef
from agent.contract.messages import Fault
from agent.fetch import Outcome
from agent.ground import Ground
from agent.lines import Waiting
from agent.serving import Member
from agent.slot import Slot

Answered = Callable[[Waiting, frames.Computed, Member | None], None]


class Intake:
    """Whatever cannot be taken is answered with a fault at once."""

    def __init__(self, ground: Ground, slot: Callable[[str], Slot | None], answered: Answered) -> None:
        self._ground = ground
        self._slot = slot
        self._answered = answered
        self._fetching = 0

    def take(self, item: Waiting) -> None:
        slot, blob = self._slot(item.message.model), item.message.blob
        if slot is None:
            self._turn_down(item, Fault(who="device", message=f"model {item.message.model} is not on this device"))
        elif self._ground.keeper.current.drain:
            self._turn_down(item, Fault(who="device", message="this device is being drained"))
        elif blob is None:
            slot.serving.offer(item)
        elif self._fetching >= self._ground.limits.shards:
            self._turn_down(item, Fault(who="device", message="the queue of this device is full"))
        else:
            self._fetch(item, blob, slot)

    def computed(self, computed: frames.Computed) -> None:
        """A blob that the disk changed must come anew: kept, it would fail whoever names it."""
        if computed.damaged:
            self._ground.blobs.drop(computed.damaged)

    def _fetch(self, item: Waiting, blob: FileRef, slot: Slot) -> None:
        self._fetching += 1

        def done(outcome: Outcome) -> None:
            self._fetching -= 1
            item.fetched = outcome.arrived
            if outcome.error:
                self._turn_down(item, Fault(who=outcome.who, message=outcome.error))
                return
            item.blob = str(self._ground.blobs.path(blob.digest))
            slot.serving.offer(item)

        self._ground.fetcher.want(blob.digest, blob.size, done, public=False)

    def _turn_down(self, item: Waiting, fault: Fault) -> None:
        self._answered(item, frames.Computed(id=0, fault=fault), None)
