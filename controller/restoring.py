"""Reads the fleet's state from the store: after a start, and after a commit that failed."""

from __future__ import annotations

from controller import job_data, job_prior, reads, records
from controller.catalog import Catalog
from controller.errors import LeptaError
from controller.fleet import Fleet
from controller.releases import Offer, offer_of
from controller.store import Store
from controller.tick import Tick


async def restore(tick: Tick, fleet: Fleet, store: Store, catalog: Catalog) -> None:
    """Give every part of the fleet what the store knows."""
    fleet.devices.restore(await store.read(reads.every(records.Device)))
    fleet.devices.bindings.restore(await store.read(reads.every(records.Binding)))
    await _restore_releases(tick, fleet, store)
    fleet.runs.restore(tick, await store.read(reads.every(records.Run, state=("queued", "running"))))
    fleet.jobs.clear()
    for job in await store.read(reads.every(records.Job, state=("queued", "running", "paused"))):
        built = await store.read(reads.every(records.Artifact, model=job.model, version=job.version))
        shards = await store.read(reads.every(records.Shard, job=job.id))
        version = await store.read(reads.get(records.Version, job.model, job.version))
        try:
            data = await fleet.jobs.inputs.open(catalog.path(job.input), job_data.wanted_of(version, built[0]))
            prior = await job_prior.read(store, job.model, job.input)
            fleet.jobs.restore(tick, job, built, shards, data, prior)
        except (LeptaError, IndexError) as error:
            fleet.jobs.give_up(tick, job, f"it cannot go on after the restart: {error}")


async def _restore_releases(tick: Tick, fleet: Fleet, store: Store) -> None:
    async def artifacts(record: records.Rollout) -> list[records.Artifact]:
        return await store.read(reads.every(records.Artifact, model=record.model, version=record.version))

    models = await store.read(reads.every(records.Model))
    fleet.devices.restore_floors(models)
    fleet.policies.restore(models)
    running = []
    for record in await store.read(reads.every(records.Rollout, state="running")):
        shares = await store.read(reads.every(records.RolloutDevice, rollout=record.id))
        running.append((record, shares, await artifacts(record)))
    current: dict[str, Offer] = {}
    for record in await store.read(reads.every(records.Rollout, newest=True, state=("running", "done", "withdrawn"))):
        if record.model not in current:
            # Of a model that was withdrawn, devices that join get nothing.
            gone = record.state == "withdrawn"
            current[record.model] = Offer() if gone else offer_of(await artifacts(record), record.extra)
    fleet.releases.restore(running, current, tick.now)
