"""The worker of a version on its way: loaded beside the one that serves, and measured on the golden sets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent import boots, frames, room, swap
from agent.check import probe_order, start_order
from agent.contract.manifest import Manifest
from agent.contract.messages import DesiredModel, ShadowResult
from agent.ground import Ground
from agent.lines import Waiting
from agent.loop import Timer
from agent.pointers import Pointer
from agent.serving import Member
from agent.shadow import Shadow
from agent.workers import Event, Exited

_LULL_S = 0.001
"""After an answer: it is out by then, and who asks in a steady rhythm does not ask again yet."""
_NO_LULL_S = 0.02
"""Nobody asks, or nobody is answered: no use to wait for it."""


class Candidate:
    """Tells what its worker shows, as events of the swap. `start`, `probe`, `settle`; `end` at any time."""

    def __init__(
        self, target: DesiredModel, manifest: Manifest, ground: Ground, tell: Callable[[swap.Event], None]
    ) -> None:
        self._manifest = manifest
        self._ground = ground
        self._tell = tell
        self._timer: Timer | None = None
        self._fork: Timer | None = None
        self._waits_for_answer = False
        self._settled = False
        self._over = False
        self._shadow: Shadow | None = None
        self.orphaned = False
        """It went with the process that had forked it, after it had settled."""
        order = start_order(manifest, ground.blobs, ground.standing.device(), ground.extra_ms_per_row)
        self.member = Member(Pointer(wanted=target, files=manifest.files, watched=False, steady=False), order)
        self.member.on_event = self._event

    def start(self, *, behind: bool) -> None:
        """Fork and load. Beside a worker that serves, it stays `behind` for a while; alone it hurries."""
        target = self.member.pointer.wanted

        def noted(error: Exception | None) -> None:
            if self._over:
                return
            if error is not None:
                self._tell(swap.Broken("device", f"the state cannot be saved: {error}"))
                return
            self._allow(self._ground.limits.start, "its start")
            if behind:
                # A fork takes the processor for a millisecond or two: best between two requests.
                self._waits_for_answer = True
                self._fork_in(_NO_LULL_S)
            else:
                self.member.spawn(self._ground.workers)

        # Before it runs: if it takes the device down, the next start knows who it was.
        self._ground.keeper.save(lambda pointers: boots.trying(pointers, target), noted)

    def probe(self) -> None:
        self._allow(self._ground.limits.probe, "its probe")
        assert self.member.worker is not None
        self.member.worker.probe(probe_order(self._manifest, self._ground.blobs))

    def shadow(self) -> None:
        """Compare its answers with those of the serving version; `answered` brings these."""
        self._stop_timer()
        asked = self.member.pointer.wanted.shadow or self._manifest.shadow
        self._shadow = Shadow(self._ground.loop, asked, self._ground.limits.compute, self.member, self._tell)

    def answered(self, item: Waiting, computed: frames.Computed) -> None:
        """By the serving version: a moment to be forked at, and in the shadow phase the same question for this one."""
        if self._waits_for_answer:
            self._fork_in(_LULL_S)
            self._waits_for_answer = False
        if self._shadow is not None:
            self._shadow.copy(item, computed)

    @property
    def shadowed(self) -> ShadowResult | None:
        """What was compared; None if nothing was to be."""
        return self._shadow.result if self._shadow is not None else None

    def settle(self) -> Pointer:
        """It passed, and this is what to save. An exit during the save is not told: the save decides first."""
        self._settled = True
        self._stop()
        return self.member.pointer

    def end(self) -> None:
        self._over = True
        self._stop()
        self.member.end()
        target = self.member.pointer.wanted
        self._ground.keeper.save(lambda pointers: boots.tried(pointers, target), _no_matter)

    def _event(self, member: Member, event: Event) -> None:
        match event:
            case frames.Ready():
                self._tell(swap.Ready())
            case frames.Failed(fault=fault, damaged=damaged):
                for digest in damaged:
                    self._ground.blobs.drop(digest)
                broken = damaged or fault.who == "network"
                self._tell((swap.Broken if broken else swap.Refused)(fault.who, fault.message))
            case frames.Probed(result=result):
                member.pointer = msgspec.structs.replace(
                    member.pointer, accuracy=result.accuracy, memory_mb=result.memory_mb
                )
                self._tell(swap.Probed(result, self._comparable_accuracy()))
            case frames.Compared() if self._shadow is not None:
                self._shadow.compared(event)
            case Exited(reason=reason, orphaned=True) if not self._settled:
                self._tell(swap.Broken("device", reason))
            case Exited(reason=reason) if not self._settled:
                self._tell(swap.Lost(reason or "it exited"))
            case Exited(orphaned=orphaned):
                self.orphaned = orphaned

    def _comparable_accuracy(self) -> float | None:
        """The serving version's accuracy, if it was measured on the very same acceptance set."""
        serving = self._ground.keeper.current.of(self._manifest.model).serving
        if serving is None or serving.files["acceptance"] != self._manifest.files["acceptance"]:
            return None
        return serving.accuracy

    def _fork_in(self, seconds: float) -> None:
        if self._fork is not None:
            self._fork.cancel()
        self._fork = self._ground.loop.call_later(seconds, self._fork_now)

    def _fork_now(self) -> None:
        self._waits_for_answer = False
        self.member.spawn(self._ground.workers, self._ground.limits.behind)

    def _allow(self, seconds: float, what: str) -> None:
        late = swap.Broken("device", f"{what} takes too long on this device")
        self._stop_timer()
        self._timer = self._ground.loop.call_later(seconds, lambda: self._tell(late))

    def _stop(self) -> None:
        self._stop_timer()
        if self._fork is not None:
            self._fork.cancel()
        if self._shadow is not None:
            self._shadow.end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _no_matter(_: Exception | None) -> None:
    """If that is not on disk, a sound candidate has one try less."""


def place_for(manifest: Manifest, ground: Ground, serving: Member | None) -> room.Place:
    """Where there is memory for a candidate, beside what serves or instead of it."""
    taken = 0.0
    if serving is not None:
        taken = serving.pointer.memory_mb or room.estimate_mb(serving.pointer.files["model"].size)
    memory = room.Memory(free_mb=ground.free_mb(), serving_mb=taken, reserve_mb=ground.limits.memory_reserve_mb)
    return room.choose(memory, room.needed_mb(manifest))
