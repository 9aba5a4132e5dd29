"""Brings a model to devices because somebody asks for it: one effort per model, however many ask.

The effort goes on when those who asked for it have gone. What `demand` decides is done in the fleet's turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from controller import placement, reads, records
from controller.demand import Decision, Optimize, Place, Ready, Refuse, Situation, Wait, decide
from controller.devices import Devices
from controller.errors import Busy, Preparing
from controller.known import Known
from controller.policies import Policies
from controller.releases import Releases
from controller.routing import Candidate, infeasible
from controller.runs import Runs, Wanted
from controller.settings import Limits
from controller.store import Store
from controller.tick import Tick
from firmware_profiles.profile import Profile

T = TypeVar("T")

# What is under way is looked at this often, or when a device reports; the store only when that has ended.
_LOOK_S = 0.2
# Looks at the store until an effort is given up; an installation that no rollout speaks for takes one each.
_MOST_LOOKS = 300


class Turns(Protocol):
    """What an effort needs of the fleet."""

    async def do(self, command: Callable[[Tick], T]) -> T: ...
    def candidates(self, model: str) -> list[Candidate]: ...


@dataclass
class _Effort:
    task: asyncio.Task[None]
    began: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once something is under way: until then a refusal may come at once."""
    waits_for: Wait | None = None
    told: list[str] = field(default_factory=list)
    """What was done, in words, for the traces of those who wait."""


@dataclass(frozen=True)
class _Seen:
    """Of a model: the version that devices are to run, devices that are here, what is under way."""

    version: int | None
    here: frozenset[str]
    rollout: str | None
    runs: frozenset[str]


class OnDemand:
    """Owned by the event loop."""

    def __init__(
        self,
        turns: Turns,
        store: Store,
        devices: Devices,
        releases: Releases,
        runs: Runs,
        policies: Policies,
        profiles: dict[str, Profile],
        limits: Limits,
    ) -> None:
        self._turns = turns
        self._store = store
        self._devices = devices
        self._releases = releases
        self._runs = runs
        self._policies = policies
        self._profiles = profiles
        self._limits = limits
        self._efforts: dict[str, _Effort] = {}
        self._waiters = 0
        self._changed = asyncio.Event()
        devices.on_change.append(lambda _tick, _device: self._changed.set())

    def may(self, model: str) -> bool:
        """Whether a request may begin anything."""
        return self._policies.of(model).on_demand != "off"

    async def ready(self, model: str, wait_s: float) -> str:
        """Return when a device can answer for the model, with what was done for that in words. Raises NotFound where
        there is no such model, Busy where nothing helps, Preparing where it takes longer than `wait_s`."""
        effort = self._efforts.get(model) or self._begin(model)
        began = asyncio.ensure_future(effort.began.wait())
        await asyncio.wait({effort.task, began}, return_when=asyncio.FIRST_COMPLETED)
        began.cancel()
        if not effort.task.done() and self._waiters < self._limits.preparation_waiters:
            self._waiters += 1
            try:
                await asyncio.wait({effort.task}, timeout=wait_s)
            finally:
                self._waiters -= 1
        if not effort.task.done():
            raise Preparing(f"{model} is being prepared: {_words(effort.waits_for)}", model)
        effort.task.result()
        return ", ".join(effort.told) or "it came meanwhile"

    async def look(self, model: str) -> tuple[Situation, Decision]:
        """How the model stands; raises NotFound."""
        situation = await self._situation(model)
        return situation, decide(situation)

    def at_work(self, model: str) -> bool:
        return model in self._efforts

    async def stop(self) -> None:
        tasks = [effort.task for effort in self._efforts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one effort

    def _begin(self, model: str) -> _Effort:
        if len(self._efforts) >= self._limits.preparations:
            raise Busy("too many models are being prepared", "try again in a minute, or roll out: lepta rollout start")
        effort = _Effort(asyncio.create_task(self._bring(model), name=f"prepare {model}"))
        self._efforts[model] = effort
        effort.task.add_done_callback(lambda task: self._over(model, task))
        return effort

    def _over(self, model: str, task: asyncio.Task[None]) -> None:
        del self._efforts[model]
        if not task.cancelled():
            # Whoever waits raises it too; where nobody does, it is known from the next look.
            task.exception()

    async def _bring(self, model: str) -> None:
        for _ in range(_MOST_LOOKS):
            situation, decision = await self.look(model)
            match decision:
                case Ready():
                    return
                case Refuse(reason, hint):
                    raise Busy(reason, hint)
                case Wait():
                    await self._wait(model, decision)
                case Place():
                    await self._place(situation)
                case Optimize(profiles):
                    await self._optimize(situation, profiles)
        raise Busy(f"{model} does not come to serve on any device", "lepta device ls")

    async def _wait(self, model: str, wait: Wait) -> None:
        self._tell(model, wait)
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            if self._serves(model) or not self._goes_on(wait):
                return

    def _tell(self, model: str, wait: Wait) -> None:
        """Something is under way: who does not want to wait may go."""
        effort = self._efforts[model]
        effort.waits_for = wait
        effort.began.set()
        if _words(wait) not in effort.told:
            effort.told.append(_words(wait))

    def _goes_on(self, wait: Wait) -> bool:
        match wait.kind:
            case "rollout":
                return self._releases.is_open(wait.id)
            case "run":
                return self._runs.is_open(wait.id)
            case "installation":
                return False

    async def _place(self, situation: Situation) -> None:
        model, number = situation.model, situation.version
        built = [a for a in await self._artifacts(model, number) if a.signed]

        def begin(tick: Tick) -> str:
            # Somebody else may have begun one meanwhile: the next look sees it.
            running = self._releases.running(model)
            return running or self._releases.start(tick, self._releases.release(tick, model, number, built), built).id

        self._tell(model, Wait("rollout", await self._turns.do(begin)))

    async def _optimize(self, situation: Situation, profiles: tuple[str, ...]) -> None:
        version = await self._store.read(reads.get(records.Version, situation.model, situation.version))
        # What it builds is released by the next look, together with what was built before.
        run = await self._turns.do(lambda tick: self._runs.queue(tick, version, Wanted(profiles=profiles)))
        self._tell(version.model, Wait("run", run.id))

    # -- how things stand

    def _serves(self, model: str) -> bool:
        return any(infeasible(candidate) is None for candidate in self._turns.candidates(model))

    async def _artifacts(self, model: str, version: int) -> list[records.Artifact]:
        return await self._store.read(reads.every(records.Artifact, model=model, version=version))

    async def _situation(self, model: str) -> Situation:
        # In this order: what is under way is taken from a turn, and the store is read when that turn is saved. So what
        # ended is always seen in one of the two.
        seen = await self._turns.do(lambda _: self._seen(model))
        version = await self._store.read(reads.latest_version(model))
        if seen.version is not None and seen.version != version.version:
            version = await self._store.read(reads.get(records.Version, model, seen.version))
        number = version.version
        artifacts = await self._artifacts(model, number)
        rollouts = await self._store.read(reads.every(records.Rollout, newest=True, model=model, version=number))
        runs = await self._store.read(reads.every(records.Run, newest=True, model=model, version=number))
        signed = {a.profile: a for a in artifacts if a.signed}
        ended = next((r for r in rollouts if r.state != "running"), None)
        return Situation(
            model,
            number,
            self._policies.of(model).on_demand,
            ready=self._serves(model),
            why_not=self._why_not(model),
            withdrawn=self._releases.withdrawn(model),
            rollout=seen.rollout,
            last_rollout=(ended.id, ended.state) if ended else None,
            run=next((run.id for run in runs if run.id in seen.runs), None),
            fits={p.device: p.profile for p in self._releases.placements(signed) if p.device in seen.here},
            calls_for={p.device: p.profile for p in self._ideal() if p.device in seen.here},
            told=_told(self._devices.all(), model, number, seen.here),
            built=frozenset(signed),
            unsigned=frozenset(a.profile for a in artifacts if not a.signed),
            tried={p: run.id for run in runs if run.id not in seen.runs for p in run.profiles},
            with_data=version.data is not None and not version.source_name.endswith(".h5"),
        )

    def _seen(self, model: str) -> _Seen:
        here = frozenset(c.device for c in self._turns.candidates(model) if c.online and not c.draining)
        running, runs = self._releases.running(model), self._runs.open_of(model)
        return _Seen(wanted_version(self._devices.all(), model), here, running, runs)

    def _why_not(self, model: str) -> str:
        unfit = ((c.device, infeasible(c)) for c in self._turns.candidates(model))
        return "; ".join(f"{device}: {reason}" for device, reason in unfit) or "no device is enrolled"

    def _ideal(self) -> list[placement.Placement]:
        """As if everything was built."""
        return placement.place(self._devices.facts(), self._profiles, self._profiles)


def wanted_version(devices: Iterable[Known], model: str) -> int | None:
    """The version that most devices are to run."""
    wanted = [m.version for known in devices for m in known.record.desired if m.model == model]
    return max(set(wanted), key=lambda v: (wanted.count(v), v)) if wanted else None


def _told(devices: Iterable[Known], model: str, version: int, here: frozenset[str]) -> dict[str, str]:
    """Devices that are to run this version, and what they report of it."""
    return {
        known.name: next((s.state for s in known.record.reported if (s.model, s.version) == (model, version)), "")
        for known in devices
        if known.name in here and any((m.model, m.version) == (model, version) for m in known.record.desired)
    }


def _words(wait: Wait | None) -> str:
    match wait:
        case Wait("rollout", id):
            return f"rolled out by {id}"
        case Wait("run", id):
            return f"optimized by {id}"
        case _:
            return "installed by its devices"
