"""How the fleet's parts are put together."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from agent.contract.messages import Stamper
from controller import job_data, reads, records, work
from controller.artifacts import Signer
from controller.bus import Bus
from controller.catalog import Catalog
from controller.delivery import Delivery
from controller.devices import Devices
from controller.errors import LeptaError
from controller.examples import Examples
from controller.fleet import Event, Fleet
from controller.inference import Inference, InferenceLimits, Trace
from controller.jobs import Jobs
from controller.keys import Keys
from controller.outbox import Outbox
from controller.recorder import from_environment
from controller.releases import Releases
from controller.routing import Candidate
from controller.runs import Runs
from controller.settings import Settings
from controller.store import Store
from controller.tick import Tick
from controller.user_requests import UserRequests
from firmware_profiles.profile import Profile


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


def build(
    *,
    settings: Settings,
    keys: Keys,
    store: Store,
    catalog: Catalog,
    bus: Bus,
    stamper: Stamper,
    optimizer: Optimizer,
    profiles: dict[str, Profile],
) -> Built:
    """Make the fleet and what belongs to it. Nothing runs yet."""
    fleet: Fleet  # made last: its parts speak to it only when it runs
    limits = settings.limits

    def happened(event: Event) -> None:
        fleet.happened(event)

    def outstanding(device: str) -> int:
        return fleet.outstanding(device)

    recorder = from_environment()
    outbox = Outbox(bus, stamper, keys.controller)
    devices = Devices(outbox, silent_s=limits.silent_s, swaps_kept=limits.swaps_kept)
    releases = Releases(devices, profiles, recorder, timeout_s=limits.rollout_timeout_s, new_id=new_id)
    signer = Signer(catalog, store, keys.release, Fleet.wall)
    runs = Runs(
        settings.data / "runs",
        store,
        catalog,
        signer,
        optimizer,
        releases,
        new_id=new_id,
        deliver=happened,
    )
    jobs = Jobs(
        settings.data / "jobs",
        catalog,
        devices,
        outbox,
        recorder,
        policy=work.Policy(),
        most_open=limits.jobs_open,
        stall_s=limits.job_stall_s,
        new_id=new_id,
        deliver=happened,
    )
    delivery = Delivery(outbox, catalog.locate, window=limits.chunk_window, most_blobs=limits.blobs_at_once)
    inference = Inference(
        _Directory(store, devices, outstanding),
        outbox,
        limits=InferenceLimits(
            limits.requests_waiting, limits.request_attempts, limits.request_attempt_s, limits.request_deadline_s
        ),
        new_id=partial(new_id, "request"),
        draw=random.random,
        keep_blob=catalog.keep,
        finished=lambda trace: _finished(fleet, trace),
    )
    devices.on_lost.append(lambda _, name: inference.lost(name))
    fleet = Fleet(
        store=store,
        devices=devices,
        releases=releases,
        runs=runs,
        jobs=jobs,
        inference=inference,
        delivery=delivery,
        recorder=recorder,
        limits=limits,
        restore=lambda tick: _restore(tick, fleet, store, catalog),
        on_user_request=UserRequests(inference, outbox).take,
    )
    examples = Examples(
        settings.data / "runs", catalog, optimizer, most=limits.examples, limit=limits.upload_bytes, new_id=new_id
    )
    return Built(fleet, signer, examples)


def new_id(kind: str) -> str:
    """`run-3f9c…`: the kind makes it readable in logs, 8 random bytes make it unique."""
    return f"{kind}-{secrets.token_hex(8)}"


class _Directory:
    """What inference asks of the fleet and the store."""

    def __init__(self, store: Store, devices: Devices, outstanding: Any) -> None:
        self._store = store
        self._devices = devices
        self._outstanding = outstanding

    def candidates(self, model: str) -> list[Candidate]:
        return self._devices.candidates(model, self._outstanding)

    async def exists(self, model: str) -> bool:
        return await self._store.read(reads.find(records.Model, model)) is not None


def _finished(fleet: Fleet, trace: Trace) -> None:
    """A request is over: log it, and let routing learn how long its device took."""
    compute = next((ms for step, ms, _ in reversed(trace.steps) if step == "compute"), 0.0)
    if trace.artifact and compute:
        fleet.devices.note_service(trace.device, trace.artifact, compute)
    fleet.log_request(
        records.Request(
            id=trace.id,
            trace_id=trace.trace_id,
            model=trace.model,
            version=trace.version,
            artifact=trace.artifact,
            device=trace.device,
            runtime=trace.runtime,
            state=trace.state,
            attempts=trace.attempts,
            received_at=trace.received_at,
            steps=tuple(records.Step(step=step, ms=ms, detail=detail) for step, ms, detail in trace.steps),
        )
    )


async def _restore(tick: Tick, fleet: Fleet, store: Store, catalog: Catalog) -> None:
    """Read the fleet's state from the store: after a start, and after a commit that failed."""
    fleet.devices.restore(await store.read(reads.every(records.Device)))
    await _restore_releases(tick, fleet, store)
    fleet.runs.restore(await store.read(reads.every(records.Run, state=("queued", "running"))))
    fleet.jobs.clear()
    for job in await store.read(reads.every(records.Job, state=("queued", "running"))):
        built = await store.read(reads.every(records.Artifact, model=job.model, version=job.version))
        shards = await store.read(reads.every(records.Shard, job=job.id))
        try:
            data = job_data.load_input(catalog.path(job.input), job_data.inputs_of(built[0]))
        except (LeptaError, IndexError) as error:
            fleet.jobs.give_up(tick, job, f"it cannot go on after the restart: {error}")
            continue
        fleet.jobs.restore(tick, job, built, shards, data)


async def _restore_releases(tick: Tick, fleet: Fleet, store: Store) -> None:
    async def artifacts(record: records.Rollout) -> list[records.Artifact]:
        return await store.read(reads.every(records.Artifact, model=record.model, version=record.version))

    running = []
    for record in await store.read(reads.every(records.Rollout, state="running")):
        shares = await store.read(reads.every(records.RolloutDevice, rollout=record.id))
        running.append((record, shares, await artifacts(record)))
    current: dict[str, list[records.Artifact]] = {}
    for record in await store.read(reads.every(records.Rollout, newest=True, state=("running", "done"))):
        if record.model not in current:
            current[record.model] = await artifacts(record)
    fleet.releases.restore(running, current, tick.now)
