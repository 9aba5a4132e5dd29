"""Devices that are taken out of service and put back: what still holds them, and when they can be switched off.

Only the controller hands out work, so the device itself is told nothing: what is on its way there is answered, and not
turned down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from controller.devices import Devices
from controller.drain_replies import Duty, DutyState
from controller.errors import Conflict
from controller.known import Known
from controller.recorder import Recorder
from controller.tick import Tick
from controller.watching import Watchers

log = logging.getLogger("lepta.drains")


class Held(NamedTuple):
    """What a device has not answered."""

    requests: int
    shards: int


_NOTHING = Held(0, 0)


class Drains:
    """Owned by the loop. That a device is cordoned stands in its record, and holds over a restart."""

    def __init__(
        self,
        devices: Devices,
        held: Callable[[str], Held],
        move_away: Callable[[Tick, str], None],
        recorder: Recorder,
        watchers: int,
    ) -> None:
        """`held` by a device; `move_away` its shards; so many `watchers` may follow at once."""
        self._devices = devices
        self._held = held
        self._move_away = move_away
        self._recorder = recorder
        self._leaving: dict[str, Held] = {}
        """Cordoned devices that hold something, and what was told of it."""
        self.watchers = Watchers(watchers)

    @property
    def busy(self) -> bool:
        """Does anybody wait for a device to be free?"""
        return bool(self._leaving)

    def cordon(self, tick: Tick, name: str, *, move: bool, force: bool) -> Duty:
        """Nothing new goes there; `move`: what waits there goes elsewhere, too. Raises Conflict where that would leave
        a model without any device, unless `force`, and for a device that is not approved. May run twice."""
        known = self._devices.require(name)
        if not known.approved:
            raise Conflict(f"{name!r} is {known.record.state}: nothing is sent to it", "lepta device ls")
        alone = only_server_of(known, self._devices.all())
        if alone and not force and not known.record.drain:
            raise Conflict(
                f"no other device serves {', '.join(alone)}: requests would fail",
                f"bring it to another device first, or add --force: lepta device drain {name} --force",
            )
        before = self._held(name)
        self._devices.set_drain(tick, name, drain=True)
        if move:
            self._move_away(tick, name)
        self._leaving[name] = before
        moved = before.shards - self._held(name).shards
        self._recorder.record(tick.now, "cordon", device=name, requests=before.requests, moved=moved)
        log.info("%s is cordoned; %d shards moved away, it holds %s", name, moved, self._held(name))
        return self.duty(name, moved)

    def uncordon(self, tick: Tick, name: str) -> Duty:
        """It is given work again. May run twice."""
        self._devices.set_drain(tick, name, drain=False)
        self._leaving.pop(name, None)
        self._recorder.record(tick.now, "uncordon", device=name)
        tick.then(partial(self.watchers.changed, name))
        return self.duty(name)

    def duty(self, name: str, moved: int = 0) -> Duty:
        """How the device stands. Raises NotFound."""
        known = self._devices.require(name)
        requests, shards = self._held(name) if known.online else _NOTHING
        left: DutyState = "draining" if requests or shards else "drained"
        bound = self._devices.bindings.of(name, known.record.desired) if known.online else ()
        return Duty(
            device=name,
            state=left if known.record.drain else "serving",
            online=known.online,
            requests=requests,
            shards=shards,
            moved=moved,
            alone=only_server_of(known, self._devices.all()),
            bindings=tuple(binding.name for binding in bound),
        )

    def tick(self, tick: Tick) -> None:
        """After all events of a tick: tell how far each device is that leaves."""
        for name, told in list(self._leaving.items()):
            known = self._devices.get(name)
            if known is None or not known.record.drain:
                del self._leaving[name]
                continue
            held = self._held(name) if known.online else _NOTHING
            self._leaving[name] = held
            if held == _NOTHING:
                del self._leaving[name]
                self._recorder.record(tick.now, "drained", device=name)
                log.info("%s holds nothing any more: it can be switched off", name)
            if held != told or held == _NOTHING:
                tick.then(partial(self.watchers.changed, name))


def only_server_of(known: Known, devices: Iterable[Known]) -> tuple[str, ...]:
    """Models that this device serves, and no other one that is online and takes requests."""
    if not known.online:
        return ()
    others = [other for other in devices if other is not known and other.online and other.approved]
    others = [other for other in others if not other.record.drain]
    served = sorted({state.model for state in known.record.reported if known.serving(state.model)})
    return tuple(model for model in served if not any(other.serving(model) for other in others))
