"""PURE: how often each version of each model was asked, and how long that took, in the shape of Triton's statistics
extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md

Counted since the server began. Durations are sums, in nanoseconds. A device quantizes, computes and dequantizes in
one go, so that all of it is `compute_infer`, and `compute_input` and `compute_output` stay 0. One execution is one
request at one device; its rows are its batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Batch sizes of a version that are told apart; the others count in the sums alone.
_SIZES = 64
# Versions that are remembered; the one counted longest ago goes.
_MOST = 10_000


@dataclass
class Duration:
    count: int = 0
    ns: int = 0

    def add(self, ms: float) -> None:
        self.count += 1
        self.ns += int(ms * 1e6)


@dataclass
class InferenceStats:
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)


@dataclass
class BatchStats:
    batch_size: int
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass
class ModelStats:
    name: str
    version: str
    last_inference: int = 0
    """Milliseconds since 1970; 0: never."""
    inference_count: int = 0
    """Rows of requests that were answered."""
    execution_count: int = 0
    inference_stats: InferenceStats = field(default_factory=InferenceStats)
    response_stats: dict[str, object] = field(default_factory=dict)
    batch_stats: list[BatchStats] = field(default_factory=list)
    memory_usage: list[object] = field(default_factory=list)


class Statistics:
    def __init__(self) -> None:
        self._of: dict[tuple[str, int], ModelStats] = {}
        self._last: dict[str, int] = {}
        self._newest: tuple[str, int] | None = None
        """The last of `_of`."""

    def answered(
        self, model: str, version: int, *, rows: int, at_ms: int, whole_ms: float, queue_ms: float, service_ms: float
    ) -> None:
        """`at_ms`: milliseconds since 1970; `whole_ms`: from a request's arrival to its answer; `queue_ms` and
        `service_ms`: on the device."""
        stats = self._moved_up(model, version)
        self._last[model] = version
        stats.last_inference = at_ms
        stats.inference_count += rows
        stats.execution_count += 1
        sums, batch = stats.inference_stats, _batch(stats, rows)
        sums.success.count += 1  # As `add`, which would be called four times by each request.
        sums.success.ns += int(whole_ms * 1e6)
        sums.queue.count += 1
        sums.queue.ns += int(queue_ms * 1e6)
        service_ns = int(service_ms * 1e6)
        for measured in (sums, batch):
            if measured is not None:
                measured.compute_input.count += 1
                measured.compute_infer.count += 1
                measured.compute_infer.ns += service_ns
                measured.compute_output.count += 1

    def failed(self, model: str, version: int, asked: int, whole_ms: float) -> None:
        """`version`: the one that failed it, 0 where none had it. Then it counts for the one that was `asked` for, if
        there is such a one, or that answered last, if any did."""
        known = asked if (model, asked) in self._of else 0
        counted = version or known or self._last.get(model, 0)
        if counted:
            self._moved_up(model, counted).inference_stats.fail.add(whole_ms)

    def of(self, model: str, versions: set[int]) -> list[ModelStats]:
        """What was counted for a model, and zeros for those of `versions` that nobody has asked yet."""
        counted = {version for name, version in self._of if name == model}
        return [
            self._of.get((model, version)) or ModelStats(model, str(version)) for version in sorted(counted | versions)
        ]

    def models(self) -> set[str]:
        return {name for name, _ in self._of}

    def _moved_up(self, model: str, version: int) -> ModelStats:
        key = (model, version)
        if key == self._newest:
            return self._of[key]
        self._newest = key
        stats = self._of.pop(key, None) or ModelStats(model, str(version))
        self._of[key] = stats
        if len(self._of) > _MOST:
            gone, _ = next(iter(self._of))
            del self._of[next(iter(self._of))]
            self._last.pop(gone, None)
        return stats


def _batch(stats: ModelStats, rows: int) -> BatchStats | None:
    for batch in stats.batch_stats:
        if batch.batch_size == rows:
            return batch
    if len(stats.batch_stats) == _SIZES:
        return None
    stats.batch_stats.append(BatchStats(rows))
    return stats.batch_stats[-1]
