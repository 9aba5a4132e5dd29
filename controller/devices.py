"""The devices as the loop knows them: who is here, what each is to run, what it says it runs, how busy it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from agent.contract import topics
from agent.contract.messages import (
    DESIRED_TYPE,
    AgentStatus,
    Desired,
    DesiredModel,
    Hello,
    Load,
    Message,
    ModelState,
    Reported,
    SeenWindow,
)
from controller import records, writes
from controller.errors import NotFound
from controller.outbox import Outbox
from controller.routing import Candidate
from controller.tick import Tick
from firmware_profiles.profile import Facts

log = logging.getLogger("lepta.devices")

# States in which a model answers requests.
_ANSWERS = frozenset({"serving", "watching"})


@dataclass
class Known:
    """A device's record, and what is only known while it is here."""

    record: records.Device
    online: bool = False
    boot: str = ""
    """Boot id of the agent's process that said hello last."""
    seen_at: float = float("-inf")
    """Monotonic seconds of its last message."""
    load: Load | None = None
    service_ms: dict[str, float] = field(default_factory=dict)
    """Measured time of one row by artifact."""
    window: SeenWindow = field(default_factory=SeenWindow)

    @property
    def name(self) -> str:
        return self.record.name

    def serving(self, model: str) -> ModelState | None:
        return next((m for m in self.record.reported if m.model == model and m.state in _ANSWERS), None)

    def row_ms(self, artifact: str) -> float:
        """Measured time of one row; 0 where nothing was measured."""
        if self.load is not None:
            for model in self.load.models:
                if model.artifact == artifact and model.service_ms > 0:
                    return model.service_ms
        return self.service_ms.get(artifact, 0.0)


class Devices:
    """Owned by the loop. Every change goes into the tick; nothing is sent before it is saved."""

    def __init__(self, outbox: Outbox, *, silent_s: float, swaps_kept: int) -> None:
        self._outbox = outbox
        self._swaps_kept = swaps_kept
        self._silent_s = silent_s
        self._known: dict[str, Known] = {}
        self.on_lost: list[Callable[[Tick, str], None]] = []
        """Called when a device goes offline."""
        self.on_change: list[Callable[[Tick, str], None]] = []
        """Called when a device says hello or reports."""

    def restore(self, devices: Iterable[records.Device]) -> None:
        """Begin from the store: everybody is offline until heard."""
        self._known = {device.name: Known(device) for device in devices}

    def all(self) -> list[Known]:
        return list(self._known.values())

    def get(self, name: str) -> Known | None:
        return self._known.get(name)

    def require(self, name: str) -> Known:
        known = self._known.get(name)
        if known is None:
            raise NotFound(f"no device is called {name!r}", "lepta device ls")
        return known

    def names(self) -> list[str]:
        return sorted(self._known)

    def facts(self) -> dict[str, Facts]:
        return {known.name: known.record.facts for known in self._known.values()}

    def online(self) -> frozenset[str]:
        return frozenset(known.name for known in self._known.values() if known.online)

    def enrol(self, tick: Tick, device: records.Device) -> None:
        self._known[device.name] = Known(device)
        tick.save(writes.put(device))

    # -- what devices say

    def is_new(self, name: str, message: Message) -> bool:
        """False for repeats and for devices that never enrolled."""
        known = self._known.get(name)
        return known is not None and known.window.is_new(message)

    def hello(self, tick: Tick, hello: Hello) -> None:
        known = self._known[hello.agent]
        if known.online and known.record.session not in ("", hello.session):
            # It restarted before anybody saw it go: what it held is gone.
            self._lose(tick, known)
        known.online, known.boot, known.seen_at = True, hello.boot, tick.now
        generation = known.record.desired_generation
        if hello.generation > generation:
            # This database is older than what the device was told: go on above it.
            generation = hello.generation + 1
        self._update(
            tick,
            known,
            facts=hello.facts,
            labels=hello.facts.labels,
            simulated=bool(hello.facts.overridden),
            agent_version=hello.agent_version,
            session=hello.session,
            desired_generation=generation,
            reported_generation=hello.generation,
            reported=hello.models,
        )
        if generation != hello.generation:
            tick.then(partial(self.send_desired, known.name))
        log.info("%s is here (%s, %d models)", known.name, hello.agent_version, len(hello.models))
        self._changed(tick, known.name)

    def reported(self, tick: Tick, name: str, reported: Reported) -> None:
        known = self._known[name]
        known.seen_at = tick.now
        self._update(tick, known, reported_generation=reported.generation, reported=reported.models)
        if reported.swap is not None:
            swap = records.Swap(device=name, model=reported.swap.model, at=tick.wall, record=reported.swap)
            tick.save(writes.put(swap), writes.trim_swaps(name, self._swaps_kept))
        self._changed(tick, name)

    def loaded(self, now: float, name: str, load: Load) -> bool:
        """A load sample: kept in memory only, exempt from saving. False if it comes from a device that counts as lost
        but is not: `returned` is due."""
        known = self._known[name]
        known.load, known.seen_at = load, now
        return known.online or load.boot != known.boot

    def returned(self, tick: Tick, name: str) -> None:
        """It was silent, or an old will was late; what it holds is unchanged."""
        known = self._known[name]
        if not known.online:
            known.online = True
            self._changed(tick, name)

    def offline(self, tick: Tick, name: str, status: AgentStatus) -> None:
        """It said goodbye, or the broker did for it. The will of an earlier process says nothing about this one."""
        known = self._known.get(name)
        if known is None or not known.online or status.boot != known.boot:
            return
        # A will was written before its connection had a session.
        if status.session in ("", known.record.session):
            self._lose(tick, known)

    def check_silence(self, tick: Tick) -> None:
        for known in self._known.values():
            if known.online and tick.now - known.seen_at > self._silent_s:
                log.warning("%s has been silent for %.0f s", known.name, self._silent_s)
                self._lose(tick, known)

    def everybody_lost(self, tick: Tick) -> None:
        """The broker is gone: nobody can be reached."""
        for known in self._known.values():
            if known.online:
                self._lose(tick, known)

    # -- what devices are to do

    def set_desired(self, tick: Tick, name: str, model: str, wanted: DesiredModel | None) -> None:
        """The device is to run `wanted` for `model`, or none; a new generation only if that changes anything."""
        known = self._known[name]
        others = tuple(m for m in known.record.desired if m.model != model)
        desired = (*others, wanted) if wanted is not None else others
        if set(desired) == set(known.record.desired):
            return
        generation = max(known.record.desired_generation, known.record.reported_generation) + 1
        self._update(tick, known, desired=desired, desired_generation=generation)
        tick.then(partial(self.send_desired, name))

    def send_desired(self, name: str) -> None:
        """Publish the signed desired state, retained. What cannot be sent now is sent at the device's next hello."""
        record = self._known[name].record
        desired = Desired(agent=name, generation=record.desired_generation, models=record.desired, drain=record.drain)
        self._outbox.send_sealed(topics.agent(name, "desired"), desired, DESIRED_TYPE, retain=True)

    # -- for routing

    def candidates(self, model: str, outstanding: Callable[[str], int]) -> list[Candidate]:
        return [self._candidate(known, model, outstanding) for known in self._known.values()]

    def note_service(self, name: str, artifact: str, row_ms: float) -> None:
        """An answer's own measurement, smoothed: fresher than the load sample."""
        known = self._known.get(name)
        if known is not None:
            before = known.service_ms.get(artifact, row_ms)
            known.service_ms[artifact] = 0.8 * before + 0.2 * row_ms
            while len(known.service_ms) > 64:
                del known.service_ms[next(iter(known.service_ms))]

    def _candidate(self, known: Known, model: str, outstanding: Callable[[str], int]) -> Candidate:
        state = known.serving(model)
        load = known.load
        return Candidate(
            device=known.name,
            online=known.online,
            artifact=state.artifact if state else None,
            outstanding=outstanding(known.name),
            queue=load.queue if load else 0,
            service_ms=known.row_ms(state.artifact) if state else 0.0,
            cpu=load.cpu if load else 0.0,
            draining=known.record.drain,
        )

    def _update(self, tick: Tick, known: Known, **changes: object) -> None:
        known.record = msgspec.structs.replace(known.record, last_seen=tick.wall, **changes)
        tick.save(writes.put(known.record))

    def _lose(self, tick: Tick, known: Known) -> None:
        known.online = False
        known.load = None
        log.info("%s is offline", known.name)
        for callback in self.on_lost:
            callback(tick, known.name)

    def _changed(self, tick: Tick, name: str) -> None:
        for callback in self.on_change:
            callback(tick, name)


def desired_of(artifact: records.Artifact) -> DesiredModel:
    return DesiredModel(
        model=artifact.model,
        version=artifact.version,
        artifact=artifact.digest,
        manifest=artifact.manifest,
        profile=artifact.profile,
    )
