"""A job that runs: its record, its rules, its data, and what can be told from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from agent.contract.dequantize import reals
from agent.contract.manifest import FileRef
from agent.contract.messages import Result
from agent.contract.tensors import TensorError, TensorSpec, rows_of
from controller import records, work
from controller.job_bytes import Moved
from controller.job_data import most_answers
from controller.job_inputs.source import Source
from controller.job_prior import Prior
from controller.job_reduction import Reduction
from controller.job_results import Entry, Results
from controller.known import Known
from controller.shards import Shard, split
from controller.sharing import Claim


@dataclass
class RunningJob:
    """Owned by the loop."""

    record: records.Job
    rules: work.Job
    data: Source
    outputs: Mapping[str, Sequence[TensorSpec]]
    """Of the artifacts that may compute for this job: one, unless it is mixed."""
    results: Results
    reduction: Reduction
    replicas: int
    began: float
    feasible: set[str] = field(default_factory=set)
    moved: Moved = field(default_factory=Moved)
    blobs: dict[int, FileRef] = field(default_factory=dict)
    """By shard, the blob that its rows went in, where they were too many for a message."""
    prior: Prior = field(default_factory=Prior)
    ended: bool = False
    saved_at: float = 0.0
    """When the counters were last written down."""
    device_s: float = 0.0
    reducing: bool = False
    """A thread is taking results in, or writes the result."""
    without_device_since: float | None = None

    @property
    def paused(self) -> bool:
        return self.record.state == "paused"

    def claim(self) -> Claim:
        """What it asks of the devices."""
        return Claim(self.record.id, self.record.priority, self.rules.waiting, frozenset(self.feasible))

    def feasible_artifact(self, known: Known) -> str | None:
        """The artifact with which this device may compute for the job; None if it may not."""
        return None if known.record.drain else self.served_artifact(known)

    def served_artifact(self, known: Known) -> str | None:
        """The same, were it not cordoned."""
        state = known.serving(self.record.model)
        if state is None or not known.online or state.artifact not in self.outputs:
            return None
        if not known.stored and self._sent_rows() > most_answers(self.outputs[state.artifact], stored=False):
            return None
        right_runtime = self.record.mixed or family(state.runtime) == self.record.runtime
        return state.artifact if right_runtime else None

    def row_s(self, known: Known, artifact: str) -> float:
        """Seconds a row on a device: measured on requests and shards, or by its probe; else a guess."""
        return known.expected_row_s(artifact, self.prior.row_ms.get((known.name, artifact), 0.0))

    def wrong(self, result: Result) -> str:
        """Why this result cannot count; empty if it can."""
        if result.fault is not None:
            return result.fault.message
        if result.artifact not in self.outputs:
            return f"computed with artifact {result.artifact[:12]}, the job is pinned to {self.record.artifact[:12]}"
        if not self.record.mixed and family(result.runtime) != self.record.runtime:
            return f"computed with {result.runtime}, the job is pinned to {self.record.runtime}"
        rows = self._shard(result.shard).rows + self.record.canaries
        try:
            found = rows_of(result.outputs)
        except TensorError as error:
            return f"broken outputs: {error}"
        return "" if found == rows else f"{found} rows came back, {rows} were sent"

    def in_reals(self, result: Result) -> Result:
        """A right result with real numbers, whichever way the device sent it."""
        return msgspec.structs.replace(result, outputs=reals(result.outputs, self.outputs[result.artifact]))

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
            bytes_moved=self.moved.moved,
            bytes_cached=self.moved.saved_by_cache,
            bytes_packed=self.moved.saved_by_packing,
            devices=devices,
            device_s=self.device_s,
        )

    def go_on(self, accepted: list[records.Shard]) -> None:
        """After a restart: with what was done, and with the counters as they were last written down."""
        record, counters = self.record, self.rules.counters
        counters.moved, counters.duplicates_refused = record.moved, record.duplicates_refused
        self.moved = Moved(record.bytes_moved, record.bytes_cached, record.bytes_packed)
        self.device_s = max(record.device_s, sum(s.busy_s for s in accepted))
        for s in accepted:
            self.remember(Shard(s.number, s.first, s.last), s)

    def remember(self, shard: Shard, kept: records.Shard) -> None:
        """An accepted shard whose outputs are in the file."""
        place = (kept.device, kept.artifact, kept.runtime, 1000 * kept.busy_s / shard.rows, kept.offset, kept.length)
        self.results.remember(
            Entry(shard.number, shard.first, shard.last, shard.number // self._of_one_replica(), *place)
        )

    def ranges(self) -> list[Shard]:
        """The shards without replicas: they follow one another over all rows."""
        return split(self.record.rows, self.record.shard_rows)

    def computed_rows(self) -> int:
        """Rows with at least one accepted answer."""
        return sum({entry.first: entry.last - entry.first for entry in self.results.entries()}.values())

    def quarantined_rows(self) -> int:
        """Rows without any answer, because they were quarantined."""
        answered = {entry.first for entry in self.results.entries()}
        given_up = {shard.first: shard.rows for shard in map(self._shard, self.rules.quarantined)}
        return sum(rows for first, rows in given_up.items() if first not in answered)

    def _sent_rows(self) -> int:
        """Of a whole shard, canaries included."""
        return self.record.shard_rows + self.record.canaries

    def _shard(self, number: int) -> Shard:
        size, rows = self.record.shard_rows, self.record.rows
        first = number % self._of_one_replica() * size
        return Shard(number, first, min(first + size, rows))

    def _of_one_replica(self) -> int:
        return max(1, self.record.shards // self.replicas)


def family(runtime: str) -> str:
    """`ai-edge-litert 2.3.0, XNNPACK` is of the family `ai-edge-litert`."""
    return runtime.split(" ")[0].rstrip(",")
