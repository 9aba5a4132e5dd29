"""What earlier work tells about a job that begins: how fast devices are, and who holds its rows from another job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller import reads, records
from controller.shards import Shard
from controller.store import Store

# Jobs over the same input that are looked at: devices keep what was used last.
_JOBS = 3


@dataclass(frozen=True)
class Prior:
    """`row_ms`: by device and artifact, as the device's own probe measured it. `cuts`: by rows of a shard and its first
    row, the devices that were sent these rows by blob."""

    row_ms: Mapping[tuple[str, str], float] = field(default_factory=dict)
    cuts: Mapping[int, Mapping[int, Sequence[str]]] = field(default_factory=dict)

    def near(self, shards: Sequence[Shard], shard_rows: int) -> dict[int, Sequence[str]]:
        """By shard, the devices that are likely to hold its rows. A guess: one that does not fetches them."""
        cut = self.cuts.get(shard_rows, {})
        return {shard.number: cut[shard.first] for shard in shards if shard.first in cut}


async def read(store: Store, model: str, input_: str) -> Prior:
    """For a job of `model` over the file `input_`, a digest."""
    row_ms = {
        (swap.device, swap.record.to_artifact): swap.record.probe.latency_ms
        for swap in await store.read(reads.last_swaps(model))
        if swap.record.probe is not None
    }
    cuts: dict[int, dict[int, list[str]]] = {}
    for job in await store.read(reads.every(records.Job, newest=True, limit=_JOBS, input=input_, canaries=0)):
        for first, device in await store.read(reads.sent_by_blob(job.id)):
            devices = cuts.setdefault(job.shard_rows, {}).setdefault(first, [])
            if device not in devices:
                devices.append(device)
    return Prior(row_ms, cuts)
