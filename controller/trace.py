"""One inference request on its way through the article's flow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agent.contract.tensors import Tensor
from controller import tracing

# The seven steps of the article's flow, as `lepta trace` shows them.
STEPS = ("user request", "optimized?", "distribute", "compute", "result?", "response", "store")


@dataclass(slots=True)
class Trace:
    """One request on its way; `steps` in the order of STEPS as (step, milliseconds, detail)."""

    id: str
    trace_id: str
    model: str
    received_at: float
    """Seconds since 1970, for people."""
    caller: str = ""
    """Who shares with whom when there is not enough room."""
    version: int = 0
    artifact: str = ""
    device: str = ""
    runtime: str = ""
    state: str = "running"
    attempts: int = 0
    error: str = ""
    """Why it failed."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    """With `inputs`, for the store, which keeps what its policy says."""
    only: int = 0
    """The one version that may answer; 0 for any."""
    rows: int = 0
    bytes: int = 0
    """Of its inputs."""
    queue_ms: float = 0.0
    service_ms: float = 0.0
    """On the device that answered."""
    steps: list[tuple[str, float, str]] = field(default_factory=list)
    ms: float = 0.0
    """Of all steps."""
    _mark: float = field(default_factory=time.perf_counter)
    _traceparent: str = ""

    @property
    def traceparent(self) -> str:
        if not self._traceparent:
            self._traceparent = tracing.header(self.trace_id, self.id)
        return self._traceparent

    def asks(self, tensors: tuple[Tensor, ...]) -> None:
        """This is the request."""
        self.inputs, self.rows = tensors, tensors[0].shape[0]
        self.bytes = sum([len(tensor.data) for tensor in tensors])
        self.step("user request", f"{self.bytes} bytes of tensors")

    def step(self, name: str, detail: str, ms: float | None = None) -> None:
        """Close a step: it took `ms`, by default the time since the last one was closed."""
        now = time.perf_counter()
        if ms is None:
            ms = (now - self._mark) * 1000
        self.steps.append((name, ms, detail))
        self.ms += ms
        self._mark = now
