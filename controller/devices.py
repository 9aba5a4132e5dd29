"""The devices as the loop knows them: who is here, what each is to run, what it says it runs, how busy it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
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
    Reported,
)
from controller import records, writes
from controller.bindings import Bindings
from controller.errors import Conflict, Internal, NotFound, UserError
from controller.identity.enrolment import revoked
from controller.known import Known
from controller.outbox import Outbox
from controller.roots import RootChain
from controller.tick import Tick
from firmware_profiles.profile import Facts

log = logging.getLogger("lepta.devices")

# Fields of a device's record that joining decides.
_IDENTITY = ("device_token_hash", "hardware", "claim", "state", "labels")


class Devices:
    """Owned by the loop. Every change goes into the tick; nothing is sent before it is saved."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        silent_s: float,
        swaps_kept: int,
        roots: RootChain | None = None,
        mirrors: tuple[str, ...] = (),
    ) -> None:
        self._outbox = outbox
        self._mirrors = mirrors
        self._swaps_kept = swaps_kept
        self._roots = roots
        self._floors: dict[str, int] = {}
        self._silent_s = silent_s
        self._known: dict[str, Known] = {}
        self.bindings = Bindings()
        self.version = 0
        """Grows with every change of a record."""
        self.on_lost: list[Callable[[Tick, str], None]] = []
        """Called when a device goes offline."""
        self.on_change: list[Callable[[Tick, str], None]] = []
        """Called when a device says hello or reports."""

    def restore(self, devices: Iterable[records.Device]) -> None:
        """Begin from the store: everybody is offline until heard."""
        self._known = {device.name: Known(device) for device in devices}
        self.version += 1

    def restore_floors(self, models: Iterable[records.Model]) -> None:
        self._floors = {model.name: model.floor for model in models if model.floor}

    def raise_floor(self, tick: Tick, model: records.Model, sequence: int) -> records.Model:
        """No device installs a manifest of the model below `sequence` any more. It is never lowered."""
        floor = max(sequence, self._floors.get(model.name, 0))
        raised = msgspec.structs.replace(model, floor=floor)
        if floor != self._floors.get(model.name):
            self._floors[model.name] = floor
            tick.save(writes.put(raised))
            for known in self._known.values():
                self._tell_anew(tick, known)
        return raised

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
        """Of those that are to run something: the approved ones."""
        return {known.name: known.record.facts for known in self._known.values() if known.approved}

    def online(self) -> frozenset[str]:
        return frozenset(known.name for known in self._known.values() if known.online)

    # -- who belongs to it

    def joined(self, tick: Tick, device: records.Device) -> records.Device:
        """A device that the store let in, or answered again; returns it as it is now. Raises Forbidden if it was
        revoked in between."""
        known = self._known.get(device.name)
        if known is None:
            known = self._known[device.name] = Known(device)
            self.version += 1
        elif known.record.state == "revoked":
            raise revoked(device.name)
        else:
            # What it runs is known better here than it was in the store.
            fresh = {name: getattr(device, name) for name in _IDENTITY}
            known.record = msgspec.structs.replace(known.record, **fresh)
            self.version += 1
        tick.save(writes.put(known.record))
        log.info("%s joined: %s", known.name, known.record.state)
        return known.record

    def certified(self, tick: Tick, name: str, expires: float) -> None:
        self._set(tick, self.require(name), certificate_expires=expires)

    def approve(self, tick: Tick, name: str) -> None:
        """It gets its certificate the next time it asks. Raises Conflict for one that was revoked."""
        known = self.require(name)
        if known.record.state == "revoked":
            raise Conflict(
                f"{name!r} was revoked, and that is for good", f"lepta device rm {name}, and let it join anew"
            )
        if not known.approved:
            self._set(tick, known, state="approved")

    def set_drain(self, tick: Tick, name: str, *, drain: bool) -> None:
        """Whether it gets anything new. May run twice."""
        known = self.require(name)
        if drain != known.record.drain:
            self._set(tick, known, drain=drain)

    def label(self, tick: Tick, name: str, put: Mapping[str, str], remove: Iterable[str], most: int) -> None:
        """Change the operator's labels; raises UserError beyond `most`."""
        known = self.require(name)
        labels = {key: value for key, value in {**known.record.labels, **put}.items() if key not in set(remove)}
        if len(labels) > most:
            raise UserError(f"{name!r} would have {len(labels)} labels, {most} at most")
        if labels == known.record.labels:
            return
        self._set(tick, known, labels=labels)
        self._tell_anew(tick, known)

    def follow(self, tick: Tick, envelope: str) -> None:
        """Take the next root document, and tell every device. Raises UserError for one that does not follow."""
        if self._roots is None:
            raise Internal("there are no root documents here")
        self._roots.add(envelope)
        for known in self._known.values():
            if known.approved:
                tick.then(partial(self.send_desired, known.name))

    def revoke(self, tick: Tick, name: str, *, void_claim: bool = False) -> None:
        """From now on nothing that it says is heard, and nothing is sent to it. May run twice. `void_claim`: nobody
        joins any more with what it joined with."""
        known = self.require(name)
        online = known.online
        self._set(tick, known, state="revoked", desired=(), reported=(), session="")
        tick.save(writes.revoke_certificates(name, tick.wall))
        if void_claim:
            tick.save(writes.remove(records.Claim, known.record.claim))
        if online:
            self._lose(tick, known)

    def forget(self, tick: Tick, name: str) -> None:
        """After it was revoked: its name may be used again. Rollouts, jobs and requests keep the name."""
        known = self.require(name)
        if known.record.state != "revoked":
            raise Conflict(f"{name!r} is {known.record.state}", f"lepta device revoke {name}")
        del self._known[name]
        self.version += 1
        tick.save(writes.forget_device(name))

    # -- what devices say

    def is_new(self, name: str, message: Message) -> bool:
        """False for repeats, and for devices that never enrolled or are not approved. What a device says of being here
        is never a repeat: its will was numbered when the connection began, thousands of messages ago."""
        known = self._known.get(name)
        if known is None or not known.approved:
            return False
        return isinstance(message, AgentStatus) or known.window.is_new(message)

    def hello(self, tick: Tick, hello: Hello) -> None:
        known = self._heard(hello.agent)
        if known is None:
            return
        if known.online and known.record.session not in ("", hello.session):
            # It restarted before anybody saw it go: what it held is gone.
            self._lose(tick, known)
        known.online, known.gone, known.boot, known.seen_at = True, False, hello.boot, tick.now
        known.root, known.packings, known.stored = hello.root, hello.packings, hello.stored
        known.together = hello.together
        generation = known.record.desired_generation
        if hello.generation > generation:
            # This database is older than what the device was told: go on above it.
            generation = hello.generation + 1
        self._update(
            tick,
            known,
            facts=hello.facts,
            simulated=bool(hello.facts.overridden),
            agent_version=hello.agent_version,
            session=hello.session,
            desired_generation=generation,
            reported_generation=hello.generation,
            reported=hello.models,
        )
        if generation != hello.generation or self._roots_for(known) or (self._mirrors and not known.told):
            tick.then(partial(self.send_desired, known.name))
        log.info("%s is here (%s, %d models)", known.name, hello.agent_version, len(hello.models))
        self._changed(tick, known.name)

    def reported(self, tick: Tick, name: str, reported: Reported) -> None:
        known = self._heard(name)
        if known is None:
            return
        known.seen_at, known.bindings = tick.now, reported.bindings
        self._update(tick, known, reported_generation=reported.generation, reported=reported.models)
        if reported.swap is not None:
            swap = records.Swap(device=name, model=reported.swap.model, at=tick.wall, record=reported.swap)
            tick.save(writes.put(swap), writes.trim_swaps(name, self._swaps_kept))
        self._changed(tick, name)

    def loaded(self, now: float, name: str, load: Load) -> bool:
        """A load sample: kept in memory only, exempt from saving. False if it comes from a device that counts as lost
        but is not: `returned` is due."""
        known = self._known[name]
        known.load, known.seen_at, known.bindings = load, now, load.bindings
        return known.online or load.boot != known.boot

    def returned(self, tick: Tick, name: str) -> None:
        """It was silent, or an old will was late; what it holds is unchanged."""
        known = self._heard(name)
        if known is not None and not known.online:
            known.online = True
            self._changed(tick, name)

    def goodbye(self, name: str, status: AgentStatus) -> bool:
        """Did it say goodbye, or the broker for it? Then no request goes there from now on, before a turn sees to the
        rest in `offline`. The will of an earlier process says nothing about this one."""
        known = self._known.get(name)
        if known is None or not known.online or status.boot != known.boot:
            return False
        # A will was written before its connection had a session.
        known.gone = status.session in ("", known.record.session)
        return known.gone

    def offline(self, tick: Tick, name: str, status: AgentStatus) -> None:
        """What a goodbye means beyond requests."""
        if self.goodbye(name, status):
            self._lose(tick, self._known[name])

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
        """The device is to run `wanted` for `model`, or none; a new generation only if that changes anything. Nothing
        happens to a device that is not approved any more."""
        known = self._heard(name)
        if known is None:
            return
        others = tuple(m for m in known.record.desired if m.model != model)
        desired = (*others, wanted) if wanted is not None else others
        if set(desired) == set(known.record.desired):
            return
        generation = max(known.record.desired_generation, known.record.reported_generation) + 1
        self._set(tick, known, desired=desired, desired_generation=generation)
        tick.then(partial(self.send_desired, name))

    def bind(self, tick: Tick, binding: records.Binding, *, bound: bool = True) -> None:
        """From now on it is bound, or not any more; the devices that it concerns are told."""
        self.bindings.put(binding) if bound else self.bindings.drop(binding.name)
        tick.save(writes.put(binding) if bound else writes.remove(records.Binding, binding.name))
        for known in self._known.values():
            if binding.concerns(known.name, known.record.desired):
                self._tell_anew(tick, known)

    def send_desired(self, name: str) -> None:
        """Publish the signed desired state, retained. What cannot be sent now is sent at the device's next hello."""
        known = self._heard(name)
        if known is None:
            return
        record = known.record
        desired = Desired(
            agent=name,
            generation=record.desired_generation,
            models=record.desired,
            minimum_sequence=self._floors,
            labels=record.labels,
            roots=self._roots_for(known),
            mirrors=self._mirrors,
            bindings=self.bindings.of(name, record.desired),
        )
        known.told = True
        self._outbox.send_sealed(topics.agent(name, "desired"), desired, DESIRED_TYPE, retain=True)

    # -- for routing

    def note_service(self, name: str, artifact: str, row_ms: float) -> None:
        """An answer's own measurement, smoothed: fresher than the load sample."""
        known = self._known.get(name)
        if known is not None:
            before = known.service_ms.get(artifact, row_ms)
            known.service_ms[artifact] = 0.8 * before + 0.2 * row_ms
            while len(known.service_ms) > 64:
                del known.service_ms[next(iter(known.service_ms))]

    def _tell_anew(self, tick: Tick, known: Known) -> None:
        """Something beside the models changed: a new generation, or the device would not look."""
        if known.record.desired_generation and known.approved:
            generation = max(known.record.desired_generation, known.record.reported_generation) + 1
            self._set(tick, known, desired_generation=generation)
            tick.then(partial(self.send_desired, known.name))

    def _roots_for(self, known: Known) -> tuple[str, ...]:
        """The root documents that it lacks."""
        return self._roots.after(known.root) if self._roots is not None else ()

    def _heard(self, name: str) -> Known | None:
        """A device that is approved. One may have been revoked or removed since its message came."""
        known = self._known.get(name)
        return known if known is not None and known.approved else None

    def _update(self, tick: Tick, known: Known, **changes: object) -> None:
        """It is there."""
        self._set(tick, known, last_seen=tick.wall, **changes)

    def _set(self, tick: Tick, known: Known, **changes: object) -> None:
        known.record = msgspec.structs.replace(known.record, **changes)
        self.version += 1
        tick.save(writes.put(known.record))

    def _lose(self, tick: Tick, known: Known) -> None:
        known.online = known.gone = False
        known.load = None
        log.info("%s is offline", known.name)
        for callback in self.on_lost:
            callback(tick, known.name)

    def _changed(self, tick: Tick, name: str) -> None:
        for callback in self.on_change:
            callback(tick, name)
