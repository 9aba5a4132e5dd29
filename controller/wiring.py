"""How the fleet's parts are put together."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from agent.contract.messages import Stamper
from controller import reads, records, work
from controller.admission import AdmissionLimits
from controller.answers import Answers
from controller.artifacts import Signer
from controller.books import Books
from controller.bus import Bus
from controller.catalog import Catalog
from controller.delivery import Delivery
from controller.devices import Devices
from controller.drains import Drains, Held
from controller.errors import Busy
from controller.examples import Examples
from controller.fleet import Event, Fleet
from controller.ids import Ordered
from controller.inference import Inference, InferenceLimits
from controller.jobs import Jobs
from controller.keys import Keys
from controller.on_demand import OnDemand
from controller.outbox import Outbox
from controller.policies import Policies
from controller.recorder import Recorder, from_environment
from controller.releases import Releases
from controller.request_log import RequestLog
from controller.restoring import restore
from controller.routing import Candidate
from controller.run_inputs import RunInputs
from controller.runs import Runs
from controller.settings import Settings
from controller.store import Store
from controller.tick import Tick
from controller.user_requests import UserRequests
from firmware_profiles.profile import Profile

T = TypeVar("T")


class Optimizer(Protocol):
    """The optimizer's process, as runs and examples need it."""

    def submit(self, run_id: str, run: dict[str, Any], out: Any) -> None: ...
    def cancel(self, run_id: str) -> None: ...
    def example(self, example_id: str, name: str, out: Any, options: dict[str, Any]) -> None: ...


@dataclass
class Built:
    fleet: Fleet
    signer: Signer
    examples: Examples
    on_demand: OnDemand


@dataclass
class Ground:
    """What is there before the fleet is made."""

    settings: Settings
    keys: Keys
    store: Store
    catalog: Catalog
    bus: Bus
    stamper: Stamper
    optimizer: Optimizer
    profiles: dict[str, Profile]


def build(ground: Ground) -> Built:
    """Make the fleet and what belongs to it. Nothing runs yet."""
    limits, store, catalog = ground.settings.limits, ground.store, ground.catalog
    late = _Late()
    recorder = from_environment()
    outbox = Outbox(ground.bus, ground.stamper, ground.keys.controller)
    devices = Devices(
        outbox,
        silent_s=limits.silent_s,
        swaps_kept=limits.swaps_kept,
        roots=ground.keys.roots,
        mirrors=ground.settings.mirrors,
    )
    releases = Releases(devices, ground.profiles, recorder, timeout_s=limits.rollout_timeout_s, new_id=new_id)
    signer = Signer(catalog, store, ground.keys.release, ground.keys.roots, Fleet.wall)
    policies = Policies(ground.settings.policy)
    runs = _runs(ground, late, signer, releases)
    on_demand = OnDemand(late, store, devices, releases, runs, policies, ground.profiles, limits)
    books = Books(Answers(policies, limits, random.random), RequestLog(limits), devices.note_service)
    inference = _inference(ground, late, devices, outbox, on_demand, books)
    jobs = _jobs(ground, late, devices, outbox, recorder)
    delivery = Delivery(outbox, catalog, window=limits.chunk_window, most_blobs=limits.blobs_at_once)
    delivery.on_sent = jobs.sent
    late.fleet = Fleet(
        store=store,
        devices=devices,
        releases=releases,
        runs=runs,
        jobs=jobs,
        inference=inference,
        delivery=delivery,
        policies=policies,
        books=books,
        drains=_drains(devices, inference, jobs, recorder, limits.watchers),
        recorder=recorder,
        limits=limits,
        restore=lambda tick: restore(tick, late.fleet, store, catalog),
        on_user_request=UserRequests(inference, outbox).take,
    )
    folder = ground.settings.data / "runs"
    examples = Examples(
        folder, catalog, ground.optimizer, most=limits.examples, limit=limits.upload_bytes, new_id=new_id
    )
    return Built(late.fleet, signer, examples, on_demand)


class _Late:
    """The fleet is made last; its parts speak to it only when it runs."""

    fleet: Fleet

    def happened(self, event: Event) -> None:
        self.fleet.happened(event)

    def candidates(self, model: str) -> list[Candidate]:
        return self.fleet.candidates(model)

    def serving(self, model: str) -> list[Candidate]:
        return self.fleet.serving(model)

    async def do(self, command: Callable[[Tick], T]) -> T:
        return await self.fleet.do(command)


def _runs(ground: Ground, late: _Late, signer: Signer, releases: Releases) -> Runs:
    data, limits = ground.settings.data, ground.settings.limits
    return Runs(
        RunInputs(data / "runs", ground.catalog, data / "optimizer-cache", limits),
        ground.store,
        signer,
        ground.optimizer,
        releases,
        limits=limits,
        new_id=new_id,
        deliver=late.happened,
    )


def _jobs(ground: Ground, late: _Late, devices: Devices, outbox: Outbox, recorder: Recorder) -> Jobs:
    limits = ground.settings.limits
    return Jobs(
        ground.settings.data / "jobs",
        ground.catalog,
        devices,
        outbox,
        recorder,
        policy=work.Policy(),
        most_open=limits.jobs_open,
        stall_s=limits.job_stall_s,
        scratch_bytes=limits.job_scratch_bytes,
        watchers=limits.watchers,
        new_id=new_id,
        deliver=late.happened,
    )


def _drains(devices: Devices, inference: Inference, jobs: Jobs, recorder: Recorder, watchers: int) -> Drains:
    def held(device: str) -> Held:
        return Held(inference.flights.awaited(device), jobs.outstanding(device))

    return Drains(devices, held, jobs.move_away, recorder, watchers)


def _inference(
    ground: Ground, late: _Late, devices: Devices, outbox: Outbox, on_demand: OnDemand, books: Books
) -> Inference:
    limits = ground.settings.limits
    inference = Inference(
        _Directory(ground.store, late, on_demand),
        outbox,
        limits=InferenceLimits(
            limits.requests_waiting,
            limits.request_attempts,
            limits.request_attempt_s,
            limits.request_deadline_s,
            limits.request_gather_s,
            AdmissionLimits(wait_ms=limits.request_wait_ms),
        ),
        new_id=Ordered("request", time.time_ns, random.getrandbits),
        draw=random.random,
        keep_blob=ground.catalog.keep,
        blob_used=ground.catalog.used,
        finished=books.add,
    )
    devices.on_lost.append(lambda _, name: inference.lost(name))
    return inference


def new_id(kind: str) -> str:
    """`run-3f9c…`: the kind makes it readable in logs, 8 random bytes make it unique."""
    return f"{kind}-{secrets.token_hex(8)}"


class _Directory:
    """What inference asks of the fleet and the store."""

    def __init__(self, store: Store, late: _Late, on_demand: OnDemand) -> None:
        self._store = store
        self._on_demand = on_demand
        self.candidates = late.candidates
        self.serving = late.serving

    async def exists(self, model: str) -> bool:
        return await self._store.read(reads.find(records.Model, model)) is not None

    async def prepare(self, model: str, wait_s: float, why_not: Busy) -> str:
        if not self._on_demand.may(model):
            raise why_not
        return await self._on_demand.ready(model, wait_s)
