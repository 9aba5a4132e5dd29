"""A job's rows on their way to devices: made ready beside the loop where that takes a while, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from agent.contract import topics
from agent.contract.messages import MAX_INLINE, Result
from agent.contract.packing import PACKINGS
from controller import job_leases, work
from controller.background import Background
from controller.catalog import Catalog
from controller.job_bytes import Legs, Moved
from controller.known import Known
from controller.outbox import Outbox
from controller.running_job import RunningJob

log = logging.getLogger("lepta.jobs")


class Shipping:
    """Owned by the loop. `failed` is told of a job whose rows cannot be read any more, and why."""

    def __init__(
        self, catalog: Catalog, outbox: Outbox, background: Background, failed: Callable[[str, str], None]
    ) -> None:
        self._catalog = catalog
        self._outbox = outbox
        self._background = background
        self._failed = failed
        self._legs = Legs()

    def send(self, active: RunningJob, lease: work.Lease, artifact: str, known: Known) -> None:
        """Tell the device to compute a shard, after the lease was saved."""
        packs = PACKINGS[0] in known.packings
        keep = self._catalog.keep
        parcel = partial(job_leases.parcel, active, lease, artifact, keep, packs=packs, stored=known.stored)
        rows = lease.shard.rows + active.record.canaries
        if packs or rows * active.data.row_bytes > MAX_INLINE:
            failed = partial(self._failed, active.record.id)
            self._background.start(self._made_ready(active, lease.device, parcel), failed)
        else:
            self._post(active, lease.device, parcel())

    def left(self, jobs: dict[str, RunningJob], device: str, digest: str, size: int, wire: int) -> None:
        """Part of a blob went to a device, as delivery tells."""
        found = self._legs.sent(device, digest, size, wire)
        if found is not None and found[0] in jobs:
            jobs[found[0]].moved += found[1]

    def answered(self, active: RunningJob, device: str, result: Result) -> None:
        """A result came, whatever it is worth."""
        active.moved += Moved(moved=sum(len(tensor.data) for tensor in result.outputs))
        blob = active.blobs.get(result.shard)
        if blob is not None:
            self._catalog.used(blob.digest)
            active.moved += self._legs.used(active.record.id, device, blob.digest, blob.size, result.fetched)

    def ended(self, job: str) -> None:
        self._legs.ended(job)

    async def _made_ready(self, active: RunningJob, device: str, parcel: Callable[[], job_leases.Parcel]) -> None:
        made = await asyncio.to_thread(parcel)
        if not active.ended:
            self._post(active, device, made)

    def _post(self, active: RunningJob, device: str, parcel: job_leases.Parcel) -> None:
        message = parcel.work
        active.moved += parcel.moved
        if message.blob is not None:
            active.blobs[message.shard] = message.blob
            self._legs.began(active.record.id, device, message.blob.digest)
        if not self._outbox.send(topics.agent(device, "work"), message):
            log.info("job %s: shard %d could not be sent; it is leased anew when its time is over", message.job,
                     message.shard)  # fmt: skip
