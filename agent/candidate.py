"""The worker of a version on its way: loaded beside the one that serves, and measured on the golden sets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent import frames, swap
from agent.check import probe_order, start_order
from agent.contract.manifest import Manifest
from agent.contract.messages import DesiredModel
from agent.ground import Ground
from agent.loop import Timer
from agent.pointers import Pointer
from agent.serving import Member
from agent.workers import Event, Exited


class Candidate:
    """Tells what its worker shows, as events of the swap. `start`, `probe`, `settle`; `end` at any time."""

    def __init__(
        self, target: DesiredModel, manifest: Manifest, ground: Ground, tell: Callable[[swap.Event], None]
    ) -> None:
        self._manifest = manifest
        self._ground = ground
        self._tell = tell
        self._timer: Timer | None = None
        self._settled = False
        order = start_order(manifest, ground.blobs, ground.standing.device().runtimes, ground.extra_ms_per_row)
        self.member = Member(Pointer(wanted=target, files=manifest.files, watched=False), order)
        self.member.on_event = self._event

    def start(self, *, behind: bool) -> None:
        """Fork and load. Beside a worker that serves, it stays `behind` for a while; alone it hurries."""
        self._allow(self._ground.limits.start, "its start")
        self.member.spawn(self._ground.workers, self._ground.limits.behind if behind else 0.0)

    def probe(self) -> None:
        self._allow(self._ground.limits.probe, "its probe")
        assert self.member.worker is not None
        self.member.worker.probe(probe_order(self._manifest, self._ground.blobs))

    def settle(self) -> Pointer:
        """It passed, and this is what to save. An exit during the save is not told: the save decides first."""
        self._settled = True
        self._stop_timer()
        return self.member.pointer

    def end(self) -> None:
        self._stop_timer()
        self.member.end()

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
                member.pointer = msgspec.structs.replace(member.pointer, accuracy=result.accuracy)
                self._tell(swap.Probed(result, self._comparable_accuracy()))
            case Exited(reason=reason) if not self._settled:
                self._tell(swap.Lost(reason or "it exited"))

    def _comparable_accuracy(self) -> float | None:
        """The serving version's accuracy, if it was measured on the very same acceptance set."""
        serving = self._ground.keeper.current.of(self._manifest.model).serving
        if serving is None or serving.files["acceptance"] != self._manifest.files["acceptance"]:
            return None
        return serving.accuracy

    def _allow(self, seconds: float, what: str) -> None:
        late = swap.Broken("device", f"{what} takes too long on this device")
        self._stop_timer()
        self._timer = self._ground.loop.call_later(seconds, lambda: self._tell(late))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
