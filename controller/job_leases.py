"""What is sent to a device for a lease, and what is kept of an accepted one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.contract import packing
from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Packed, Result, Work, encode_tensors
from agent.contract.tensors import Tensor
from controller import canaries, records, work
from controller.job_bytes import Moved
from controller.job_inputs.source import tensor_of
from controller.running_job import RunningJob
from controller.shards import Shard


@dataclass(frozen=True)
class Parcel:
    """What is sent, and the bytes of rows that move with it."""

    work: Work
    moved: Moved


def parcel(
    active: RunningJob,
    lease: work.Lease,
    artifact: str,
    keep: Callable[[bytes], FileRef],
    *,
    packs: bool,
    stored: bool,
) -> Parcel:
    """The rows of a shard; what is too large for a message goes by blob, which `keep` holds. For any thread: it changes
    nothing. `packs`: the device can unpack; `stored`: it can answer as its model stores numbers."""
    tensors = _tensors(active, lease.shard)
    size = sum(len(t.data) for t in tensors)
    common: dict[str, Any] = {
        "job": active.record.id,
        "shard": lease.shard.number,
        "attempt": lease.attempt,
        "ttl_ms": lease.ttl_s * 1000,
        "model": active.record.model,
        "artifact": artifact,
        "runtime": "" if active.record.mixed else active.record.runtime,
        "stored": stored,
    }
    if size > MAX_INLINE:
        return Parcel(Work(**common, blob=keep(encode_tensors(tensors))), Moved())
    content = encode_tensors(tensors) if packs else b""
    if not packing.pays(content):
        return Parcel(Work(**common, inputs=tensors), Moved(moved=size))
    packed = Packed(packing=packing.PACKINGS[0], size=len(content), data=packing.pack(content))
    less = max(0, size - len(packed.data))
    return Parcel(Work(**common, packed=packed), Moved(moved=size - less, saved_by_packing=less))


def kept(active: RunningJob, accept: work.Accept, result: Result) -> records.Shard:
    """Write an accepted shard's outputs into the job's file; the record that counts it once the file is on the disk."""
    offset, length = active.results.add(_own_first(active, accept.shard, result.outputs))
    record = shard_record(
        active.record.id,
        accept.shard,
        state="accepted",
        attempt=accept.attempt,
        device=accept.device,
        artifact=result.artifact,
        runtime=result.runtime,
        busy_s=result.service_ms / 1000,
        result=f"jobs/{active.record.id}.results",
        offset=offset,
        length=length,
        blob=active.blobs[accept.shard.number].digest if accept.shard.number in active.blobs else "",
    )
    active.remember(accept.shard, record)
    return record


def _tensors(active: RunningJob, shard: Shard) -> tuple[Tensor, ...]:
    """The shard's rows, with the job's canaries hidden among them."""
    job, count = active.record.id, active.record.canaries
    if not count:
        return active.data.tensors(shard.first, shard.last)
    pieces = [active.data.read(shard.first, shard.last)]
    pieces += [active.data.read(row, row + 1) for row in canaries.chosen(job, shard.number, count, active.data.rows)]
    order = canaries.order(job, shard.number, shard.rows + count)
    return tuple(tensor_of(name, np.concatenate([each[name] for each in pieces])[order]) for name in pieces[0])


def _own_first(active: RunningJob, shard: Shard, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of the shard's rows in their order, those of its canaries behind them."""
    if not active.record.canaries:
        return outputs
    order = canaries.order(active.record.id, shard.number, shard.rows + active.record.canaries)
    arrays = {t.name: np.frombuffer(t.data, t.dtype).reshape(t.shape) for t in outputs}
    return tuple(tensor_of(name, canaries.sorted_back(array, order)) for name, array in arrays.items())


def shard_record(job: str, shard: Shard, **fields: Any) -> records.Shard:
    return records.Shard(job=job, number=shard.number, first=shard.first, last=shard.last, **fields)
