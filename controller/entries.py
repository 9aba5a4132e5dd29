"""What pages hold: finished requests and stored answers.

They are written as arrays: fields are appended, with defaults, and never moved.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import msgspec

from agent.contract.tensors import Tensor
from controller.trace import Trace

Step = tuple[str, float, str]
"""Name, milliseconds, detail."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What both tell of a request, as its trace does."""

    id: str
    trace_id: str
    model: str
    version: int
    artifact: str
    device: str
    runtime: str
    state: str
    received_at: float
    """Seconds since 1970."""


class Request(Entry, frozen=True, array_like=True):
    """A request as the log has it. Nothing of its tensors: these may be large."""

    attempts: int
    steps: list[Step]
    kept: str
    """What becomes of its answer."""
    since: float
    """When it was handed to the log, in monotonic seconds."""


class Answer(Entry, frozen=True, array_like=True):
    """What became of a request that a device was asked, kept by policy."""

    error: str
    ms: float
    """From receipt to the response."""
    size: int
    """Bytes that it counts for in its model's limit."""


class FullAnswer(Answer, frozen=True, array_like=True):
    """With its tensors, which come last: who reads pages of `Answer` leaves them where they are."""

    outputs: tuple[Tensor, ...] = ()
    inputs: tuple[Tensor, ...] | None = None
    """None where they were not kept, which is usual."""


told_of: Callable[[Trace], tuple[str, str, str, int, str, str, str, str, float]] = attrgetter(*Entry.__struct_fields__)
"""The fields of `Entry`, in their order."""
