"""Answers on their way into the store: taken by policy, held in a bounded buffer, written a batch at a time.

A request never waits for this: it leaves references here, and the database's thread encodes and writes them. Where
the disk does not keep up, the oldest are dropped and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from agent.contract.tensors import Tensor
from controller import answer_rows, policy
from controller.entries import FullAnswer, told_of
from controller.inference import Trace
from controller.policies import Policies
from controller.settings import Limits
from controller.tick import Tick

# How often answers are looked at for their age.
_EXPIRE_S = 30.0
_MOST_ERROR = 1000
_NOT_KEPT = "the answer is not kept"
_WITH, _WITHOUT = "the answer is kept, with its inputs", "the answer is kept, without its inputs"


class Answers:
    """Owned by the loop."""

    def __init__(self, policies: Policies, limits: Limits, draw: Callable[[], float]) -> None:
        """`draw` in [0, 1) chooses samples."""
        self._policies = policies
        self._limits = limits
        self._draw = draw
        self._waiting: deque[tuple[Trace, int]] = deque()
        self._bytes = 0
        self._writing = 0
        self._expired_at = float("-inf")
        self.dropped = 0
        """Answers that were to be stored and were not, since the controller started."""

    def offer(self, trace: Trace) -> str:
        """A request is over; says in words what becomes of it. One that no device was asked has no answer to keep."""
        how = self._policies.of(trace.model)
        if not trace.attempts or not policy.keeps(how, trace.state != "answered", self._draw()):
            return _NOT_KEPT
        if not policy.keeps_inputs(how):
            trace.inputs = ()
        size = policy.ROW_BYTES + _bytes(trace.outputs) + _bytes(trace.inputs)
        self._waiting.append((trace, size))
        self._bytes += size
        while self._bytes > self._limits.answers_waiting_bytes or len(self._waiting) > self._limits.answers_waiting:
            self._bytes -= self._waiting.popleft()[1]
            self.dropped += 1
        return _WITH if trace.inputs else _WITHOUT

    def flush(self, tick: Tick) -> None:
        """Hand what waits to the writer, as much as one commit should take; now and then let the old ones go."""
        if self._writing:
            # The commit before this one failed, and took its answers with it.
            self.dropped += self._writing
            self._writing = 0
        batch = self._take()
        of = self._policies.of
        if batch:
            self._writing = len(batch)
            tick.save(answer_rows.add(lambda: _entries(batch), of, self._limits.answers_bytes))
            tick.then(self._written)
        if tick.now - self._expired_at >= _EXPIRE_S:
            self._expired_at = tick.now
            tick.save(answer_rows.expire(of, tick.wall))

    def _take(self) -> deque[tuple[Trace, int]]:
        """As many as one commit should take."""
        if len(self._waiting) <= self._limits.answers_batch:
            batch, self._waiting, self._bytes = self._waiting, deque(), 0
            return batch
        taken = deque(self._waiting.popleft() for _ in range(self._limits.answers_batch))
        self._bytes -= sum(size for _, size in taken)
        return taken

    def _written(self) -> None:
        self._writing = 0


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum([len(tensor.data) for tensor in tensors]) if tensors else 0


def _entries(batch: deque[tuple[Trace, int]]) -> Iterator[FullAnswer]:
    """Leaves nothing of the batch: thousands of traces that the loop let go of at once would hold it up."""
    while batch:
        yield _entry(*batch.popleft())


def _entry(trace: Trace, size: int) -> FullAnswer:
    ms = sum([ms for _, ms, _ in trace.steps])
    return FullAnswer(*told_of(trace), trace.error[:_MOST_ERROR], ms, size, trace.outputs, trace.inputs or None)
