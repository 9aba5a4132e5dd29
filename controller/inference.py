"""Inference requests: route, send, await the answer, retry elsewhere. In memory only, logged in batches.

One request has one effect for its caller: the first answer is taken, and what comes later is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.contract import topics
from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Answer, Infer, Message, encode_tensors
from agent.contract.tensors import Tensor
from controller import routing, tracing
from controller.errors import BadRequest, Busy, DeviceError, LeptaError, NotFound, Timeout
from controller.routing import Candidate, NoRoute, Route

# The seven steps of the article's flow, as `lepta trace` shows them.
STEPS = ("user request", "optimized?", "distribute", "compute", "result?", "response", "store")


class Bus(Protocol):
    """What inference needs of the bus."""

    def publish(self, topic: str, message: Message) -> bool:
        """Publish with QoS 0; False while there is no connection."""


class Directory(Protocol):
    """What inference needs to know of the fleet."""

    def candidates(self, model: str) -> list[Candidate]: ...
    async def exists(self, model: str) -> bool: ...
    async def prepare(self, model: str, wait_s: float, why_not: Busy) -> str:
        """Bring a model to a device within `wait_s`; says in words what was done. Raises `why_not` or a better reason,
        or Preparing where that takes longer."""


@dataclass(frozen=True)
class InferenceLimits:
    most_waiting: int = 1024
    """Requests in flight; more are refused with 503."""
    attempts: int = 3
    attempt_s: float = 10.0
    """How long one device may take before another one is tried."""
    deadline_s: float = 30.0


@dataclass
class Trace:
    """One request on its way; `steps` in the order of STEPS as (step, milliseconds, detail)."""

    id: str
    trace_id: str
    model: str
    received_at: float
    """Seconds since 1970, for people."""
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
    queue_ms: float = 0.0
    service_ms: float = 0.0
    """On the device that answered."""
    steps: list[tuple[str, float, str]] = field(default_factory=list)
    _mark: float = field(default_factory=time.perf_counter)

    @property
    def traceparent(self) -> str:
        return tracing.header(self.trace_id, self.id)

    def step(self, name: str, detail: str, ms: float | None = None) -> None:
        """Close a step: it took `ms`, by default the time since the last one was closed."""
        now = time.perf_counter()
        self.steps.append((name, (now - self._mark) * 1000 if ms is None else ms, detail))
        self._mark = now


class _Lost(Exception):
    """The device went away with the request."""


class Inference:
    """Owned by the event loop."""

    def __init__(
        self,
        directory: Directory,
        bus: Bus,
        *,
        limits: InferenceLimits,
        new_id: Callable[[], str],
        draw: Callable[[], float],
        keep_blob: Callable[[bytes], FileRef],
        finished: Callable[[Trace], None],
    ) -> None:
        """`keep_blob` stores bytes that are too large for a message; `finished` gets each trace once, for the log."""
        self._directory = directory
        self._bus = bus
        self._limits = limits
        self._new_id = new_id
        self._draw = draw
        self._keep_blob = keep_blob
        self._finished = finished
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._at: dict[str, str] = {}
        self._outstanding: dict[str, int] = {}

    def outstanding(self, device: str) -> int:
        return self._outstanding.get(device, 0)

    def begin(self, model: str, trace_id: str) -> Trace:
        """Open a trace when the request arrives, before its body is decoded."""
        return Trace(self._new_id(), trace_id, model, time.time())

    async def infer(
        self,
        trace: Trace,
        tensors: tuple[Tensor, ...],
        deadline_s: float | None = None,
        prepare_s: float | None = None,
    ) -> Answer:
        """One device's answer. Raises BadRequest, NotFound, Busy, Preparing, DeviceError or Timeout; the caller calls
        `close`. `prepare_s`: how long of that to wait for a model that no device has; None: all of it."""
        if len(self._waiting) >= self._limits.most_waiting:
            raise Busy("too many requests are waiting", "try again in a second, or add devices")
        trace.inputs = tensors
        trace.step("user request", f"{sum(len(t.data) for t in tensors)} bytes of tensors")
        trace.rows = tensors[0].shape[0]
        deadline = time.monotonic() + min(deadline_s or self._limits.deadline_s, self._limits.deadline_s)
        tried: set[str] = set()
        fault = ""
        left = deadline - time.monotonic()
        route = await self._first_route(trace, left if prepare_s is None else min(left, prepare_s))
        for _ in range(self._limits.attempts):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            answer = await self._attempt(trace, route, tensors, left)
            fault = answer if isinstance(answer, str) else ""
            if isinstance(answer, Answer):
                if answer.fault is None:
                    return answer
                if answer.fault.who == "user":
                    raise BadRequest(answer.fault.message)
                fault = f"{route.device}: {answer.fault.message}"
            tried.add(route.device)
            trace.step("result?", f"no: {fault}; retry")
            route = await self._route(trace, frozenset(tried))
        if time.monotonic() >= deadline:
            raise Timeout(f"no device answered in time; last: {fault or 'nothing'}")
        raise DeviceError(f"{trace.attempts} attempts failed; last: {fault}")

    def close(self, trace: Trace, state: str) -> None:
        """The response is out: hand the trace to the log."""
        trace.state = state
        trace.step("response", state)
        self._finished(trace)

    def answered(self, device: str, answer: Answer) -> None:
        """An answer came in; one that nobody waits for (late, repeated, foreign) is dropped."""
        if self._at.get(answer.request) == device:
            future = self._waiting.get(answer.request)
            if future is not None and not future.done():
                future.set_result(answer)

    def lost(self, device: str) -> None:
        """A device went away: what it held is tried elsewhere at once."""
        for request, at in list(self._at.items()):
            future = self._waiting.get(request)
            if at == device and future is not None and not future.done():
                future.set_exception(_Lost(f"{device} was lost"))

    async def _first_route(self, trace: Trace, wait_s: float) -> Route:
        """Where the model is not on any device yet, its way there belongs to the step."""
        done = ""
        try:
            try:
                route = await self._route(trace, frozenset())
            except Busy as error:
                if trace.only:
                    raise  # What would be prepared need not be that version.
                done = f"not yet: {await self._directory.prepare(trace.model, wait_s, error)}; then "
                route = await self._route(trace, frozenset())
        except LeptaError as error:
            trace.step("optimized?", f"no: {error.message}")
            raise
        trace.step("optimized?", f"{done}yes: artifact {route.artifact[:12]}")
        return route

    async def _route(self, trace: Trace, tried: frozenset[str]) -> Route:
        model = trace.model
        candidates = routing.of_version(self._directory.candidates(model), trace.only)
        route = routing.choose(candidates, tried, self._draw())
        if isinstance(route, NoRoute):
            if not await self._directory.exists(model):
                raise NotFound(f"no model is called {model[:80]!r}", "lepta model ls")
            asked = f"{model} version {trace.only}" if trace.only else model
            raise Busy(f"no device can answer for {asked}: {'; '.join(route.reasons)}", "lepta device ls")
        return route

    async def _attempt(self, trace: Trace, route: Route, tensors: tuple[Tensor, ...], left_s: float) -> Answer | str:
        """Ask one device; a string says why there is no answer."""
        # Each attempt has an id of its own, so that a late answer of the first device cannot pass for the second's.
        trace.attempts += 1
        attempt = trace.id if trace.attempts == 1 else f"{trace.id}.{trace.attempts}"
        message = self._message(attempt, route, trace, tensors, left_s)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[attempt] = future
        self._at[attempt] = route.device
        self._outstanding[route.device] = self.outstanding(route.device) + 1
        sent = time.perf_counter()
        try:
            if not self._bus.publish(topics.agent(route.device, "infer"), message):
                return "the broker is not connected"
            async with asyncio.timeout(min(left_s, self._limits.attempt_s)):
                answer = await future
        except TimeoutError:
            return f"{route.device} did not answer in time"
        except _Lost as error:
            return str(error)
        finally:
            del self._waiting[attempt], self._at[attempt]
            self._outstanding[route.device] -= 1
        if answer.fault is None and trace.only not in (0, answer.version):
            return f"{route.device} serves version {answer.version} by now"
        self._note(trace, route, answer, (time.perf_counter() - sent) * 1000)
        return answer

    def _message(self, attempt: str, route: Route, trace: Trace, tensors: tuple[Tensor, ...], left_s: float) -> Infer:
        small = sum(len(t.data) for t in tensors) <= MAX_INLINE
        return Infer(
            request=attempt,
            model=trace.model,
            artifact=route.artifact,
            ttl_ms=left_s * 1000,
            inputs=tensors if small else (),
            blob=None if small else self._keep_blob(encode_tensors(tensors)),
            traceparent=trace.traceparent,
        )

    def _note(self, trace: Trace, route: Route, answer: Answer, total_ms: float) -> None:
        trace.version, trace.artifact = answer.version, answer.artifact
        trace.device, trace.runtime = route.device, answer.runtime
        trace.outputs = answer.outputs
        trace.queue_ms, trace.service_ms = answer.queue_ms, answer.service_ms
        compute = answer.queue_ms + answer.service_ms
        trace.step("distribute", f"to {route.device}, both ways by MQTT: {route.reason}", max(0.0, total_ms - compute))
        trace.step(
            "compute",
            f"{answer.runtime}: {answer.queue_ms:.2f} ms queued, {answer.service_ms:.2f} ms computed",
            compute,
        )
        if answer.fault is None:
            trace.step("result?", "yes")
