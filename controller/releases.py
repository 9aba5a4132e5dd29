"""Releases and rollouts: a version is offered, and brought to the fleet by the pure rules of `rollout`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from agent.contract.messages import DesiredModel
from controller import records, rollout, writes
from controller.devices import Devices
from controller.errors import Conflict, NotFound, UserError
from controller.placement import Placement, place
from controller.recorder import Recorder
from controller.signing_desk import HOW
from controller.tick import Tick
from firmware_profiles.profile import Facts, Profile

log = logging.getLogger("lepta.releases")
_NOTHING = records.Extra()


@dataclass(frozen=True)
class Offer:
    """What the devices are to get of a model: artifacts by profile; none if it was withdrawn."""

    artifacts: dict[str, records.Artifact] = field(default_factory=dict)
    extra: records.Extra = _NOTHING


@dataclass
class _Open:
    """A rollout that runs. `previous`: what each device was to run before, the way back."""

    record: records.Rollout
    state: rollout.Rollout
    offer: Offer
    previous: dict[str, DesiredModel | None] = field(default_factory=dict)
    superseded: Offer | None = None
    """What devices that join were to get before."""


class Releases:
    """Owned by the loop."""

    def __init__(
        self,
        devices: Devices,
        profiles: dict[str, Profile],
        recorder: Recorder,
        *,
        timeout_s: float,
        new_id: Callable[[str], str],
    ) -> None:
        self._devices = devices
        self._profiles = profiles
        self._recorder = recorder
        self._timeout_s = timeout_s
        self._new_id = new_id
        self._open: dict[str, _Open] = {}
        self._current: dict[str, Offer] = {}
        """Per model, for a device that joins now."""
        devices.on_lost.append(self._lost)
        devices.on_change.append(self._device_changed)

    def restore(
        self,
        running: Iterable[tuple[records.Rollout, list[records.RolloutDevice], list[records.Artifact]]],
        current: dict[str, Offer],
        now: float,
    ) -> None:
        """Begin from the store. A running rollout goes on where it was: what devices say next decides."""
        self._open = {}
        for record, shares, artifacts in running:
            state = rollout.Rollout(
                record.id,
                record.release,
                record.model,
                record.version,
                tuple(_share(s) for s in shares),
                deadline=now + self._timeout_s,
            )
            offer = offer_of(artifacts, record.extra)
            self._open[record.id] = _Open(record, state, offer, {s.device: s.previous for s in shares})
        self._current = dict(current)

    def release(self, tick: Tick, model: str, version: int, artifacts: list[records.Artifact]) -> records.Release:
        """Offer a version. Raises UserError if nothing was built for it."""
        if not artifacts:
            raise UserError(f"{model} version {version} has no artifact to release", "lepta deploy, or lepta run ls")
        waiting = sorted(a.profile for a in artifacts if not a.signed)
        if waiting:
            raise Conflict(
                f"{model} version {version} for {', '.join(waiting)} waits for the release key's signature",
                HOW,
            )
        release = records.Release(
            id=self._new_id("release"),
            model=model,
            version=version,
            artifacts={a.profile: a.digest for a in artifacts},
            created_at=tick.wall,
        )
        tick.save(writes.put(release))
        return release

    def start(
        self, tick: Tick, release: records.Release, artifacts: list[records.Artifact], extra: records.Extra = _NOTHING
    ) -> records.Rollout:
        """Bring a release to every enrolled device. One rollout per model at a time."""
        self._check_none_runs(release.model)
        record = records.Rollout(
            id=self._new_id("rollout"),
            release=release.id,
            model=release.model,
            version=release.version,
            extra=extra,
            created_at=tick.wall,
        )
        offer = offer_of(artifacts, extra)
        placements = self.placements(offer.artifacts)
        shares = tuple(_placed(p, offer.artifacts) for p in placements)
        state = rollout.Rollout(record.id, release.id, release.model, release.version, shares)
        previous = {share.device: self._desired_now(share.device, release.model) for share in shares}
        opened = _Open(record, state, offer, previous, self._current.get(release.model))
        self._open[record.id] = opened
        self._current[release.model] = offer
        self._step(tick, opened, rollout.Started(self._devices.online(), self._timeout_s))
        return opened.record

    def abort(self, tick: Tick, rollout_id: str) -> records.Rollout:
        opened = self._open.get(rollout_id)
        if opened is None:
            raise NotFound(f"no running rollout is called {rollout_id!r}", "lepta rollout ls")
        self._step(tick, opened, rollout.Aborted())
        return opened.record

    def withdraw(self, tick: Tick, release: records.Release) -> records.Rollout:
        """Take a model off every device, and give it to none that joins, until it is rolled out again. `release` is
        its newest. Kept as a rollout, so that its history tells of it."""
        self._check_none_runs(release.model)
        record = records.Rollout(
            id=self._new_id("rollout"),
            release=release.id,
            model=release.model,
            version=release.version,
            state="withdrawn",
            created_at=tick.wall,
            finished_at=tick.wall,
        )
        tick.save(writes.put(record))
        self._current[release.model] = Offer()
        for known in self._devices.all():
            self._devices.set_desired(tick, known.name, release.model, None)
        log.info("%s is withdrawn from all devices", release.model)
        return record

    def tick(self, tick: Tick) -> None:
        for opened in list(self._open.values()):
            self._step(tick, opened, rollout.Ticked())

    # -- what happens to devices

    def _lost(self, tick: Tick, device: str) -> None:
        for opened in list(self._open.values()):
            self._step(tick, opened, rollout.Gone(device))

    def _device_changed(self, tick: Tick, device: str) -> None:
        known = self._devices.require(device)
        for opened in list(self._open.values()):
            meant = {artifact.manifest for artifact in opened.offer.artifacts.values()}
            for state in known.record.reported:
                if state.model == opened.record.model and state.manifest in meant:
                    event = rollout.Reported(device, state.artifact, state.state, state.reason)
                    self._step(tick, opened, event)
        if known.record.desired_generation == 0:
            self._welcome(tick, device)

    def _welcome(self, tick: Tick, device: str) -> None:
        """A device that joined gets what its fleet runs."""
        facts = {device: self._devices.require(device).record.facts}
        for model, offer in self._current.items():
            [placement] = self.placements(offer.artifacts, facts)
            if placement.profile is not None:
                self._devices.set_desired(tick, device, model, desired_of(offer, placement.profile))

    def withdrawn(self, model: str) -> bool:
        """No device is to have it until it is rolled out again."""
        return self._current.get(model) == Offer()

    def running(self, model: str) -> str | None:
        """The rollout of a model that is under way."""
        return next((opened.record.id for opened in self._open.values() if opened.record.model == model), None)

    def is_open(self, rollout_id: str) -> bool:
        return rollout_id in self._open

    def placements(self, built: dict[str, records.Artifact], facts: dict[str, Facts] | None = None) -> list[Placement]:
        """Which of these artifacts, by profile, each device would get; the devices of `facts`, or all that are to run
        something. Whom a version is signed for counts as much as what it fits."""
        placements = place(self._devices.facts() if facts is None else facts, self._profiles, built)
        return [self._within(placement, built) for placement in placements]

    def _within(self, placement: Placement, built: dict[str, records.Artifact]) -> Placement:
        device, profile = placement.device, placement.profile
        if profile is None or built[profile].target.takes(device, self._devices.require(device).labels):
            return placement
        return Placement(device, None, (f"the version is signed for {built[profile].target}",))

    def _check_none_runs(self, model: str) -> None:
        busy = self.running(model)
        if busy is not None:
            raise Conflict(f"rollout {busy} of {model} is still running", f"lepta rollout abort {busy}")

    # -- deciding

    def _step(self, tick: Tick, opened: _Open, event: rollout.Event) -> None:
        before = opened.state
        opened.state, actions = rollout.step(before, event, tick.now)
        model = opened.record.model
        for action in actions:
            match action:
                case rollout.SetDesired(device, profile):
                    self._devices.set_desired(tick, device, model, desired_of(opened.offer, profile))
                case rollout.Restore(device):
                    self._devices.set_desired(tick, device, model, opened.previous.get(device))
        if opened.state != before:
            self._save(tick, opened)

    def _save(self, tick: Tick, opened: _Open) -> None:
        state = opened.state
        ended = None if state.open else tick.wall
        opened.record = msgspec.structs.replace(opened.record, state=state.state, finished_at=ended)
        tick.save(writes.put(opened.record))
        for share in state.shares:
            tick.save(writes.put(_record(state.id, share, opened.previous.get(share.device))))
        if state.open:
            return
        del self._open[state.id]
        if state.state != rollout.DONE:
            self._withdraw(opened)
        log.info("rollout %s of %s version %d: %s", state.id, state.model, state.version, state.state)
        self._recorder.record(
            tick.now, "rollout", id=state.id, model=state.model, version=state.version, state=state.state
        )

    def _withdraw(self, opened: _Open) -> None:
        """What did not succeed is nothing to give to devices that join."""
        model = opened.record.model
        if self._current.get(model) == opened.offer:
            if opened.superseded is None:
                del self._current[model]
            else:
                self._current[model] = opened.superseded

    def _desired_now(self, device: str, model: str) -> DesiredModel | None:
        known = self._devices.require(device)
        return next((m for m in known.record.desired if m.model == model), None)


def _placed(placement: Placement, built: dict[str, records.Artifact]) -> rollout.Share:
    if placement.profile is None:
        return rollout.Share(placement.device, None, None, reason="; ".join(placement.reasons))
    return rollout.Share(placement.device, placement.profile, built[placement.profile].digest)


def _share(record: records.RolloutDevice) -> rollout.Share:
    return rollout.Share(record.device, record.profile, record.artifact, record.state, record.reason, record.history)


def _record(rollout_id: str, share: rollout.Share, previous: DesiredModel | None) -> records.RolloutDevice:
    return records.RolloutDevice(
        rollout=rollout_id,
        device=share.device,
        profile=share.profile,
        artifact=share.artifact,
        state=share.state,
        reason=share.reason,
        history=share.history,
        previous=previous,
    )


def offer_of(artifacts: Iterable[records.Artifact], extra: records.Extra) -> Offer:
    return Offer({artifact.profile: artifact for artifact in artifacts}, extra)


def desired_of(offer: Offer, profile: str) -> DesiredModel:
    """What a device of this profile is to run."""
    artifact = offer.artifacts[profile]
    return DesiredModel(
        model=artifact.model,
        version=artifact.version,
        artifact=artifact.digest,
        manifest=artifact.manifest,
        profile=artifact.profile,
        watch=offer.extra.watch,
        shadow=offer.extra.shadow,
    )
