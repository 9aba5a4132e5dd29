"""Devices taken out of service: what they hold, when they may be switched off, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.drains import Drains, Held
from controller.errors import Conflict, NotFound
from controller.recorder import Silence
from controller.tick import Tick
from tests.unit.test_devices import World, serving


class Service:
    """Devices `a` and `b` that serve, and what `a` holds."""

    def __init__(self, *names: str) -> None:
        self.world = World(*names)
        for name in names:
            self.world.hello(name, models=(serving(1),))
        self.held = Held(0, 0)
        self.moved: list[str] = []
        self.drains = Drains(self.world.devices, self._held, self._move_away, Silence(), 2)

    def turn(self, act: Callable[[Tick], object]) -> object:
        """As the loop does: everything that came in, then a look around."""
        result = self.world.turn(act)
        self.world.turn(self.drains.tick)
        return result

    def cordon(self, name: str = "a", *, move: bool = False, force: bool = False) -> object:
        return self.turn(lambda tick: self.drains.cordon(tick, name, move=move, force=force))

    def state(self, name: str = "a") -> str:
        return self.drains.duty(name).state

    def _held(self, name: str) -> Held:
        return self.held if name == "a" else Held(0, 0)

    def _move_away(self, _: Tick, name: str) -> None:
        self.moved.append(name)
        self.held = self.held._replace(shards=0)


def test_a_device_can_be_switched_off_once_it_holds_nothing() -> None:
    service = Service("a", "b")
    service.held = Held(2, 3)
    service.cordon(move=True)
    assert (service.moved, service.state(), service.drains.busy) == (["a"], "draining", True)
    service.held = Held(0, 0)
    assert service.state() == "drained"
    service.turn(lambda _: None)
    assert not service.drains.busy
    service.turn(lambda tick: service.drains.uncordon(tick, "a"))
    assert service.state() == "serving"


def test_a_cordoned_device_keeps_its_shards_until_it_is_drained() -> None:
    service = Service("a", "b")
    service.held = Held(0, 3)
    service.cordon()
    assert (service.moved, service.state()) == ([], "draining")
    service.cordon(move=True)
    assert (service.moved, service.state()) == (["a"], "drained")


def test_a_device_that_is_gone_holds_nothing_and_can_be_switched_off() -> None:
    service = Service("a", "b")
    service.held = Held(1, 0)
    service.cordon(move=True)
    service.world.turn(service.world.devices.everybody_lost)
    assert service.state() == "drained"


def test_the_only_server_of_a_model_is_taken_out_only_by_force() -> None:
    service = Service("a", "b")
    service.cordon("b")
    with pytest.raises(Conflict, match="no other device serves digits"):
        service.cordon("a")
    assert service.state("a") == "serving"
    service.cordon("a", force=True)
    assert service.drains.duty("a").alone == ("digits",)
    service.cordon("a", move=True)
    assert service.moved == ["a"]


def test_who_was_revoked_or_never_joined_cannot_be_cordoned() -> None:
    service = Service("a", "b")
    service.world.revoke("a")
    with pytest.raises(Conflict, match="revoked"):
        service.cordon("a")
    with pytest.raises(NotFound):
        service.cordon("c")


def test_who_follows_hears_of_every_change_and_of_the_end() -> None:
    service = Service("a", "b")
    service.held = Held(2, 0)
    with service.drains.watchers.watch("a") as changed:
        for held in (Held(2, 0), Held(1, 0), Held(0, 0)):
            service.held = held
            service.cordon(move=True) if held == (2, 0) else service.turn(lambda _: None)
            assert changed.is_set() == (held != (2, 0))
            changed.clear()
        service.turn(lambda _: None)
        assert not changed.is_set()
