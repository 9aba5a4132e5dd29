"""A job that runs: its record, its rules, its data, and what can be told from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from agent.contract.messages import Result
from agent.contract.tensors import TensorError, rows_of
from controller import records, work
from controller.job_data import JobInput
from controller.job_results import Results
from controller.known import Known
from controller.shards import Shard


@dataclass
class RunningJob:
    """Owned by the loop."""

    record: records.Job
    rules: work.Job
    data: JobInput
    artifacts: frozenset[str]
    """Digests that may compute for this job: one, unless it is mixed."""
    results: Results
    began: float
    feasible: set[str] = field(default_factory=set)
    bytes_moved: int = 0
    without_device_since: float | None = None

    def feasible_artifact(self, known: Known) -> str | None:
        """The artifact with which this device may compute for the job; None if it may not."""
        state = known.serving(self.record.model)
        if state is None or not known.online or known.record.drain or state.artifact not in self.artifacts:
            return None
        right_runtime = self.record.mixed or family(state.runtime) == self.record.runtime
        return state.artifact if right_runtime else None

    def wrong(self, result: Result) -> str:
        """Why this result cannot count; empty if it can."""
        if result.fault is not None:
            return result.fault.message
        if result.artifact not in self.artifacts:
            return f"computed with artifact {result.artifact[:12]}, the job is pinned to {self.record.artifact[:12]}"
        if not self.record.mixed and family(result.runtime) != self.record.runtime:
            return f"computed with {result.runtime}, the job is pinned to {self.record.runtime}"
        rows = self._shard(result.shard).rows
        try:
            found = rows_of(result.outputs)
        except TensorError as error:
            return f"broken outputs: {error}"
        return "" if found == rows else f"{found} rows came back, {rows} were sent"

    def counted(self) -> records.Job:
        """The record with the counters as they stand."""
        rules = self.rules
        devices = {
            name: records.JobShare(shards=share.shards, rows=share.rows, busy_s=share.busy_s)
            for name, share in rules.devices.items()
        }
        return msgspec.structs.replace(
            self.record,
            accepted=len(self.results),
            quarantined=len(rules.quarantined),
            moved=rules.counters.moved,
            duplicates_refused=rules.counters.duplicates_refused,
            bytes_moved=self.bytes_moved,
            devices=devices,
        )

    def quarantined_rows(self) -> int:
        return sum(self._shard(number).rows for number in self.rules.quarantined)

    def _shard(self, number: int) -> Shard:
        size, rows = self.record.shard_rows, self.record.rows
        return Shard(number, number * size, min((number + 1) * size, rows))


def family(runtime: str) -> str:
    """`ai-edge-litert 2.3.0, XNNPACK` is of the family `ai-edge-litert`."""
    return runtime.split(" ")[0].rstrip(",")
