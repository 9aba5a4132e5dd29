"""What is sent to a device for a lease, and what is kept of an accepted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Result, Work, encode_tensors
from agent.contract.tensors import Tensor
from controller import canaries, records, work
from controller.job_inputs.source import tensor_of
from controller.running_job import RunningJob
from controller.shards import Shard


def message(active: RunningJob, lease: work.Lease, artifact: str, keep: Callable[[bytes], FileRef]) -> Work:
    """The rows of a shard; what is too large for a message goes by blob, which `keep` holds."""
    tensors = _tensors(active, lease.shard)
    size = sum(len(t.data) for t in tensors)
    active.bytes_moved += size
    common: dict[str, Any] = {
        "job": active.record.id,
        "shard": lease.shard.number,
        "attempt": lease.attempt,
        "ttl_ms": lease.ttl_s * 1000,
        "model": active.record.model,
        "artifact": artifact,
        "runtime": "" if active.record.mixed else active.record.runtime,
    }
    if size <= MAX_INLINE:
        return Work(**common, inputs=tensors)
    return Work(**common, blob=keep(encode_tensors(tensors)))


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
