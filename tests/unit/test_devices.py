"""The devices as the loop knows them, and how a rollout moves them. The bus is a double of the real port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from agent.contract.manifest import FileRef, Shadow, Watch
from agent.contract.messages import (
    DESIRED_TYPE,
    AgentStatus,
    Desired,
    Hello,
    Load,
    ModelState,
    Reported,
    Stamper,
    decode_as,
)
from agent.contract.signing import PrivateKey, open_sealed
from controller import records
from controller.admission import AdmissionLimits, Pace
from controller.bus import Bus
from controller.candidates import Candidates, Traffic
from controller.devices import Devices
from controller.errors import Conflict, Forbidden, UserError
from controller.known import Known
from controller.outbox import Outbox
from controller.recorder import Silence
from controller.records import Extra
from controller.releases import Releases
from controller.routing import Candidate
from controller.tick import Tick
from firmware_profiles.profile import Facts, builtin

KEY = PrivateKey.generate()
PLAIN = Extra()
FACTS = Facts(machine="x86_64", memory_mb=4000, runtimes=("ai-edge-litert",))


@dataclass
class RecordingBus:
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, on_acked: Callable[[], None] | None = None
    ) -> bool:
        self.sent.append((topic, payload, retain))
        return True

    def desired(self, agent: str) -> list[Desired]:
        topic = f"lepta/v1/agents/{agent}/desired"
        return [
            decode_as(Desired, "agents/desired", open_sealed(p, DESIRED_TYPE, [KEY.public]))
            for t, p, _ in self.sent
            if t == topic
        ]


def _no_sample(_devices: object, _count: int) -> list[Known]:
    raise AssertionError("so few are all looked at")


class World:
    """Devices and releases on a double of the bus; `turn` does what one turn of the loop does, without a disk."""

    def __init__(self, *names: str, mirrors: tuple[str, ...] = ()) -> None:
        self.bus = RecordingBus()
        self.devices = Devices(
            Outbox(cast(Bus, self.bus), Stamper("boot"), KEY), silent_s=15, swaps_kept=10, mirrors=mirrors
        )
        counter = iter(range(1000))
        self.releases = Releases(
            self.devices, builtin(), Silence(), timeout_s=60, new_id=lambda kind: f"{kind}-{next(counter)}"
        )
        quiet = Traffic(requests=0, shards=0, shard_ms=0.0, pace=Pace(AdmissionLimits()), now=0.0)
        self._candidates = Candidates(self.devices, lambda _device, _model: quiet)
        self.now = 100.0
        for name in names:
            self.enrol(name)

    def candidates(self, model: str) -> list[Candidate]:
        """All of them. Those that are looked at for a request are the ones that serve, whatever happened before."""
        found = self._candidates.all(model)
        assert self._candidates.some(model, _no_sample) == [c for c in found if c.artifact]
        return found

    def enrol(self, name: str, state: records.DeviceState = "approved") -> None:
        self.turn(lambda tick: self.devices.joined(tick, record(name, state)))

    def revoke(self, name: str) -> None:
        self.turn(lambda tick: self.devices.revoke(tick, name))

    def forget(self, name: str) -> None:
        self.turn(lambda tick: self.devices.forget(tick, name))

    def turn(self, act: Callable[[Tick], object]) -> object:
        tick = Tick(self.now, 0.0)
        result = act(tick)
        for action in tick.actions:
            action()
        return result

    def hello(
        self,
        name: str,
        generation: int = 0,
        session: str = "s",
        models: tuple[ModelState, ...] = (),
        boot: str = "b",
    ) -> None:
        hello = Hello(agent=name, session=session, generation=generation, facts=FACTS, models=models, boot=boot)
        self.turn(lambda tick: self.devices.hello(tick, hello))

    def report(self, name: str, state: str, version: int = 1, reason: str = "") -> None:
        known = self.devices.require(name)
        models = (serving(version, state, reason),)
        reported = Reported(generation=known.record.desired_generation, models=models)
        self.turn(lambda tick: self.devices.reported(tick, name, reported))

    def deploy(self, version: int = 1, extra: Extra = PLAIN) -> records.Rollout:
        built = [artifact(version)]

        def act(tick: Tick) -> records.Rollout:
            release = self.releases.release(tick, "digits", version, built)
            return self.releases.start(tick, release, built, extra)

        return cast(records.Rollout, self.turn(act))


def record(name: str, state: records.DeviceState = "approved") -> records.Device:
    return records.Device(name=name, public_key="", device_token_hash=name, facts=FACTS, enrolled_at=0.0, state=state)


def artifact(version: int) -> records.Artifact:
    digest = str(version) * 64
    files = {role: FileRef(digest, 1) for role in ("model", "parity", "acceptance")}
    return records.Artifact(
        digest=digest,
        model="digits",
        version=version,
        profile="x86-cpu",
        files=files,
        manifest=digest,
        sequence=version,
        created_at=0.0,
    )


def serving(version: int, state: str = "serving", reason: str = "") -> ModelState:
    digest = str(version) * 64
    values = {"model": "digits", "version": version, "artifact": digest, "manifest": digest, "profile": "x86-cpu"}
    return msgspec.convert({**values, "state": state, "reason": reason}, ModelState)


def test_a_device_is_told_what_it_lacks_and_nothing_when_it_lacks_nothing() -> None:
    world = World("a")
    world.hello("a")
    assert world.bus.desired("a") == []
    world.deploy()
    [desired] = world.bus.desired("a")
    assert (desired.generation, desired.models[0].version) == (1, 1)
    world.hello("a", generation=1, session="s2")
    assert len(world.bus.desired("a")) == 1


def test_a_device_that_missed_it_is_told_at_its_next_hello() -> None:
    world = World("a")
    world.deploy()
    world.bus.sent.clear()
    world.hello("a", generation=0)
    assert [d.generation for d in world.bus.desired("a")] == [1]


def test_mirrors_are_told_once_after_the_controller_began_and_with_whatever_is_told() -> None:
    world = World("a", mirrors=("https://mirror.example/",))
    world.hello("a")
    world.hello("a", session="s2")
    assert [d.mirrors for d in world.bus.desired("a")] == [("https://mirror.example/",)]
    world.deploy()
    assert world.bus.desired("a")[-1].mirrors == ("https://mirror.example/",)


def test_a_rollout_tells_its_devices_what_it_asks_above_the_manifest_and_the_next_one_does_not() -> None:
    world = World("a")
    world.hello("a")
    extra = Extra(watch=Watch(answers=50), shadow=Shadow(requests=20))
    world.deploy(1, extra)
    world.report("a", "serving", 1)
    world.deploy(2)
    told = [(d.models[0].watch, d.models[0].shadow) for d in world.bus.desired("a")]
    assert told == [(Watch(answers=50), Shadow(requests=20)), (None, None)]


def test_desired_states_are_retained() -> None:
    world = World("a")
    world.deploy()
    assert all(retain for topic, _, retain in world.bus.sent if topic.endswith("/desired"))


def test_generations_only_grow_even_when_the_database_is_older_than_the_device() -> None:
    world = World("a")
    world.hello("a", generation=41)
    assert world.devices.require("a").record.desired_generation == 42
    world.deploy()
    assert [d.generation for d in world.bus.desired("a")] == [42, 43]


def test_what_changes_nothing_makes_no_new_generation() -> None:
    world = World("a")
    world.deploy()
    world.report("a", "serving")
    world.deploy()
    assert [d.generation for d in world.bus.desired("a")] == [1]


def test_a_refusing_device_is_sent_back_to_what_it_served() -> None:
    world = World("a")
    world.hello("a")
    world.deploy(1)
    world.report("a", "serving", 1)
    world.deploy(2)
    world.report("a", "refused", 2, "accuracy 0.1")
    generations = [(d.generation, d.models[0].version) for d in world.bus.desired("a")]
    assert generations == [(1, 1), (2, 2), (3, 1)]


def test_a_device_that_joins_later_gets_what_the_fleet_runs_but_never_what_failed() -> None:
    world = World("a")
    world.hello("a")
    world.deploy(1)
    world.report("a", "serving", 1)
    world.deploy(2)
    world.report("a", "failed", 2)
    world.enrol("b")
    world.hello("b")
    assert [d.models[0].version for d in world.bus.desired("b")] == [1]


def test_a_device_that_joins_later_is_asked_for_what_the_rollout_asked() -> None:
    world = World("a")
    world.hello("a")
    extra = Extra(watch=Watch(answers=50), shadow=Shadow(requests=20))
    world.deploy(1, extra)
    world.report("a", "serving", 1)
    world.enrol("b")
    world.hello("b")
    [desired] = world.bus.desired("b")
    assert (desired.models[0].watch, desired.models[0].shadow) == (extra.watch, extra.shadow)


def test_a_will_takes_its_own_process_offline_and_no_later_one() -> None:
    world = World("a")
    world.hello("a", session="new", boot="second")
    for stale in (
        AgentStatus(online=False, boot="first"),
        AgentStatus(online=False, boot="second", session="old"),
    ):
        world.turn(lambda tick, stale=stale: world.devices.offline(tick, "a", stale))  # type: ignore[misc]
        assert world.devices.online() == {"a"}
    world.turn(lambda tick: world.devices.offline(tick, "a", AgentStatus(online=False, boot="second")))
    assert world.devices.online() == frozenset()


def test_a_device_that_was_given_up_and_still_speaks_is_back() -> None:
    world = World("a")
    world.hello("a", boot="b")
    world.now += 16
    world.turn(world.devices.check_silence)
    load = Load(cpu=0.0, memory=0.0, queue=0, boot="b")
    assert not world.devices.loaded(world.now, "a", load)
    world.turn(lambda tick: world.devices.returned(tick, "a"))
    assert world.devices.online() == {"a"}


def test_a_restarted_device_loses_what_it_held_even_if_nobody_saw_it_go() -> None:
    world = World("a")
    lost: list[str] = []
    world.devices.on_lost.append(lambda _, name: lost.append(name))
    world.hello("a", session="one")
    world.hello("a", session="two")
    assert lost == ["a"]
    assert world.devices.online() == {"a"}


def test_a_silent_device_counts_as_offline() -> None:
    world = World("a")
    world.hello("a")
    world.now += 16
    world.turn(world.devices.check_silence)
    assert world.devices.online() == frozenset()


def test_only_what_serves_is_a_candidate_for_requests() -> None:
    world = World("a", "b")
    world.hello("a", models=(serving(1), serving(2, "probing")))
    world.hello("b", models=(serving(2, "fetching"),))
    found = {c.device: c.artifact for c in world.candidates("digits")}
    assert found == {"a": "1" * 64, "b": None}


def test_a_device_that_said_goodbye_gets_no_request_before_a_turn_sees_to_the_rest() -> None:
    world = World("a")
    world.hello("a", models=(serving(1),), session="s2")

    def online() -> list[bool]:
        return [c.online for c in world.candidates("digits")]

    assert not world.devices.goodbye("a", AgentStatus(online=False, session="s1", boot="b"))
    assert not world.devices.goodbye("a", AgentStatus(online=False, session="s2", boot="older"))
    assert online() == [True]
    assert world.devices.goodbye("a", AgentStatus(online=False, boot="b"))
    assert online() == [False]
    assert world.devices.online() == {"a"}
    world.hello("a", models=(serving(1),), session="s3", boot="b2")
    assert online() == [True]


def test_a_will_counts_however_much_was_said_since_it_was_written() -> None:
    world = World("a")
    world.hello("a")
    will = AgentStatus(online=False, boot="b", seq=1)
    for seq in range(2, 20_000):
        assert world.devices.is_new("a", Load(cpu=0.0, memory=0.0, queue=0, boot="b", seq=seq))
    assert world.devices.is_new("a", will)
    assert not world.devices.is_new("b", will)
    world.turn(lambda tick: world.devices.offline(tick, "a", will))
    assert world.devices.online() == frozenset()


# -- who belongs to the fleet


def test_a_device_that_waits_is_listed_and_neither_heard_nor_given_anything_until_it_is_approved() -> None:
    world = World()
    world.enrol("a", "pending")
    load = Load(cpu=0.0, memory=0.0, queue=0, boot="b", seq=1)
    assert world.devices.names() == ["a"]
    assert not world.devices.is_new("a", load)
    world.hello("a")
    assert (world.deploy().state, world.bus.sent) == ("done", [])
    assert (world.devices.online(), world.devices.facts()) == (frozenset(), {})
    assert world.candidates("digits") == []
    world.turn(lambda tick: world.devices.approve(tick, "a"))
    assert world.devices.is_new("a", load)
    world.hello("a")
    assert [d.models[0].version for d in world.bus.desired("a")] == [1]


def test_a_revoked_device_is_lost_at_once_not_heard_and_sent_nothing() -> None:
    world = World("a", "b")
    lost: list[str] = []
    world.devices.on_lost.append(lambda _, name: lost.append(name))
    world.hello("a", models=(serving(1),))
    world.hello("b")
    world.revoke("a")
    assert lost == ["a"]
    assert world.devices.online() == {"b"}
    assert not world.devices.is_new("a", Load(cpu=0.0, memory=0.0, queue=0, boot="b", seq=9))
    world.deploy()
    assert world.bus.desired("a") == []
    assert [c.device for c in world.candidates("digits")] == ["b"]


def test_what_came_just_before_a_revocation_changes_nothing_after_it() -> None:
    world = World("a")
    world.hello("a")
    hello = Hello(agent="a", session="s", generation=0, facts=FACTS, models=(serving(1),), boot="b")

    def turn(tick: Tick) -> None:
        world.devices.set_desired(tick, "a", "digits", None)
        world.devices.revoke(tick, "a")
        world.devices.hello(tick, hello)
        world.devices.returned(tick, "a")
        world.devices.reported(tick, "a", Reported(generation=1, models=(serving(1),)))

    world.turn(turn)
    assert world.devices.online() == frozenset()
    assert world.devices.require("a").record.reported == ()
    assert world.bus.sent == []


def test_a_revocation_is_for_good() -> None:
    world = World("a")
    world.revoke("a")
    world.revoke("a")
    with pytest.raises(Conflict, match="for good"):
        world.turn(lambda tick: world.devices.approve(tick, "a"))
    with pytest.raises(Forbidden, match="was revoked"):
        world.enrol("a")


def test_only_who_was_shut_out_is_forgotten() -> None:
    world = World("a")
    with pytest.raises(Conflict, match="is approved"):
        world.forget("a")


def test_a_rollout_goes_on_and_can_be_aborted_when_one_of_its_devices_is_removed() -> None:
    world = World("a", "b")
    world.hello("a")
    world.hello("b")
    rollout = world.deploy()
    world.revoke("a")
    world.forget("a")
    world.now += 1
    world.turn(world.releases.tick)
    world.turn(lambda tick: world.releases.abort(tick, rollout.id))
    assert [d.generation for d in world.bus.desired("a")] == [1]
    assert [m for d in world.bus.desired("b") for m in d.models][-1:] != []


def test_the_name_of_a_removed_device_is_a_new_devices_and_that_gets_what_the_fleet_runs() -> None:
    world = World("a")
    world.hello("a")
    world.deploy(1)
    world.report("a", "serving", 1)
    world.revoke("a")
    world.forget("a")
    world.bus.sent.clear()
    world.enrol("a")
    world.hello("a")
    assert [(d.generation, d.models[0].version) for d in world.bus.desired("a")] == [(1, 1)]


def test_asking_again_changes_who_a_device_is_and_not_what_it_runs() -> None:
    world = World("a")
    world.hello("a")
    world.deploy(1)
    fresh = msgspec.structs.replace(record("a"), device_token_hash="new", labels={"site": "north"})
    world.turn(lambda tick: world.devices.joined(tick, fresh))
    now = world.devices.require("a").record
    assert (now.device_token_hash, now.labels, now.desired_generation) == ("new", {"site": "north"}, 1)
    assert world.devices.online() == {"a"}


def test_an_operators_labels_stand_above_those_that_the_device_says() -> None:
    world = World("a")
    facts = msgspec.structs.replace(FACTS, labels={"room": "cellar", "rack": "2"})

    def label(put: dict[str, str], *remove: str, most: int = 9) -> dict[str, str]:
        world.turn(lambda tick: world.devices.label(tick, "a", put, remove, most))
        hello = Hello(agent="a", session="s", generation=0, facts=facts, boot="b")
        world.turn(lambda tick: world.devices.hello(tick, hello))
        return world.devices.require("a").labels

    assert label({"room": "attic", "x": "1"}) == {"room": "attic", "rack": "2", "x": "1"}
    assert label({}, "room", "never") == {"room": "cellar", "rack": "2", "x": "1"}
    with pytest.raises(UserError, match="2 labels"):
        label({"y": "1"}, most=1)
