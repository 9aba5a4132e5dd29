"""What is sent to a device for a lease, and what is kept of an accepted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Result, Work, encode_tensors
from controller import records, work
from controller.running_job import RunningJob
from controller.shards import Shard


def message(active: RunningJob, lease: work.Lease, artifact: str, keep: Callable[[bytes], FileRef]) -> Work:
    """The rows of a shard; what is too large for a message goes by blob, which `keep` holds."""
    tensors = active.data.tensors(lease.shard.first, lease.shard.last)
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
    offset, length = active.results.add(result.outputs)
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


def shard_record(job: str, shard: Shard, **fields: Any) -> records.Shard:
    return records.Shard(job=job, number=shard.number, first=shard.first, last=shard.last, **fields)
