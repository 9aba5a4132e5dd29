"""Inference requests: admit, route, send, await the answer, try elsewhere. In memory only, logged in batches.

One request has one effect for its caller: the first good answer is taken, and what comes later is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from agent.contract import topics
from agent.contract.infer import together
from agent.contract.manifest import FileRef
from agent.contract.messages import MAX_INLINE, Answer, Infer, Message, encode_tensors
from agent.contract.tensors import Tensor
from controller import routing
from controller.admission import AdmissionLimits, House, Room, Spare, over_share
from controller.departures import Departures
from controller.errors import BadRequest, Busy, DeviceError, LeptaError, NotFound, Timeout, TooMany
from controller.flights import Callers, Flight, Flights
from controller.patience import Patience
from controller.race import Landed, Race
from controller.routing import Candidate, NoRoute, Route
from controller.trace import Trace

FULL = "the controller has all the requests that it can answer in time"
_NO_ROOM = "no room"
_SURELY_S = 0.001
"""Later than a moment, one looks what it has brought."""
_LATER = "wait as long as Retry-After says, or add devices"


class Bus(Protocol):
    """What inference needs of the bus."""

    def publish(self, topic: str, message: Message, *, now: bool) -> bool:
        """Publish with QoS 0, `now` or at the end of the loop's turn; False while there is no connection."""


class Directory(Protocol):
    """What inference needs to know of the fleet."""

    def candidates(self, model: str) -> list[Candidate]:
        """What every device could do for a model, nothing included."""

    def serving(self, model: str) -> list[Candidate]:
        """Devices that serve a model; of many, a few by chance."""

    async def exists(self, model: str) -> bool: ...
    async def prepare(self, model: str, wait_s: float, why_not: Busy) -> str:
        """Bring a model to a device within `wait_s`; says in words what was done. Raises `why_not` or a better reason,
        or Preparing where that takes longer."""


@dataclass(frozen=True)
class InferenceLimits:
    most_waiting: int = 1024
    """Requests in the house; more are refused with 503."""
    attempts: int = 3
    attempt_s: float = 10.0
    """How long one attempt may take before it is given up; one that is late is tried elsewhere long before."""
    deadline_s: float = 30.0
    gather_s: float = 0.002
    """So long at most a request waits for others, while its device has some to answer."""
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)


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
        blob_used: Callable[[str], None],
        finished: Callable[[Trace], None],
    ) -> None:
        """`keep_blob` holds bytes that are too large for a message until `blob_used`, or it needs the room; `finished`
        gets each trace once, for the log."""
        self._directory = directory
        self._bus = bus
        self._limits = limits
        self._new_id = new_id
        self._draw = draw
        self._keep_blob, self._blob_used = keep_blob, blob_used
        self._finished = finished
        self._callers = Callers()
        self._spare = Spare()
        self._patience = Patience()
        self._preparing = 0
        """Requests that wait for their model to come to a device."""
        self.flights = Flights(limits.admission, limits.attempt_s)
        self._departures = Departures(self._leave, self.flights.outstanding, limits.gather_s)
        self.house = House(limits.admission, limits.most_waiting)

    def begin(self, model: str, trace_id: str, caller: str = "") -> Trace:
        """Open a trace when the request arrives, before its body is decoded."""
        return Trace(self._new_id(), trace_id, model, time.time(), caller)

    async def infer(
        self,
        trace: Trace,
        tensors: tuple[Tensor, ...],
        deadline_s: float | None = None,
        prepare_s: float | None = None,
    ) -> Answer:
        """One device's answer. Raises BadRequest, NotFound, TooMany, Busy, Preparing, DeviceError or Timeout; the
        caller calls `close`. `prepare_s`: how long of that to wait for a model that no device has; None: all of it."""
        if self.house.full:
            self._refuse(trace, FULL, self.house.drain_ms() / 1000)
        trace.asks(tensors)
        deadline_s = min(deadline_s or self._limits.deadline_s, self._limits.deadline_s)
        until = time.monotonic() + deadline_s
        self._callers.enter(trace.caller)
        try:
            route = await self._first_route(trace, deadline_s if prepare_s is None else min(deadline_s, prepare_s))
            return await self._in_house(trace, route, tensors, until)
        finally:
            self._callers.leave(trace.caller)

    async def _in_house(self, trace: Trace, route: Route, tensors: tuple[Tensor, ...], until: float) -> Answer:
        """Counts from here on: while a model is on its way to a device, its requests take nothing from others."""
        self.house.enter(time.monotonic())
        self._spare.request()
        race = Race(self._patience)
        compute_ms: float | None = None
        try:
            answer = await self._run(race, trace, route, tensors, until)
            compute_ms = answer.service_ms
            return answer
        finally:
            race.over()
            self.house.leave(time.monotonic(), compute_ms)

    def close(self, trace: Trace, state: str) -> None:
        """The response is out: hand the trace to the log. Requests that found no room are not logged: an overload
        would only grow by that."""
        if trace.state == _NO_ROOM:
            return
        trace.state = state
        trace.step("response", state)
        self._finished(trace)

    def answered(self, device: str, answer: Answer) -> None:
        """An answer came in; one that nobody waits for (late, repeated, foreign) is dropped."""
        spent = (answer.queue_ms, answer.service_ms) if answer.fault is None else None
        flight = self.flights.answered(answer.request, device, time.monotonic(), spent)
        if flight is None:
            return
        self._departures.returned(device)
        if flight.blob:
            self._blob_used(flight.blob)
        if flight.landed is not None:
            flight.landed(answer)

    def lost(self, device: str) -> None:
        """A device went away: what it held is tried elsewhere at once."""
        for flight in self.flights.lost(device):
            if flight.landed is not None:
                flight.landed(f"{device} was lost")

    def turn_away(self, inside: int, callers: int) -> Busy | None:
        """Why a request cannot be taken in now, before anything was done for it; None if it can. `inside`: those that
        came the same way and are not answered; `callers`: who wait that way, for an answer or a refusal, now or of
        late. To refuse must cost little, or an overload would leave nothing for those who were let in."""
        if max(inside - self._preparing, self.house.held) < self.house.room(callers):
            return None
        return Busy(FULL, _LATER, retry_s=self.house.drain_ms() / 1000)

    # -- one request

    async def _run(self, race: Race, trace: Trace, route: Route, tensors: tuple[Tensor, ...], until: float) -> Answer:
        """Attempts one after the other, and a second one beside the first when that is late."""
        fault = self._send(race, trace, route, tensors, until)
        while (now := time.monotonic()) < until:
            if not race.flying:
                if trace.attempts >= self._limits.attempts:
                    raise DeviceError(f"{trace.attempts} attempts failed; last: {fault}")
                trace.step("result?", f"no: {fault}; retry")
                again = await self._route(trace, frozenset(race.tried), admitted=True)
                fault = self._send(race, trace, again, tensors, until)
                continue
            news = await race.next(min(until, self._look_at(race, trace, now)))
            if news is None:
                fault = self._late(race, trace, tensors, until) or fault
                continue
            flight, taken, how = news
            if isinstance(how, Answer) and how.fault is None and trace.only in (0, how.version):
                self._note(trace, taken, how, (time.monotonic() - flight.sent) * 1000)
                return how
            fault = self._failed(flight, how)
        raise Timeout(f"no device answered in time; last: {fault or 'nothing'}")

    def _send(self, race: Race, trace: Trace, route: Route, tensors: tuple[Tensor, ...], until: float) -> str:
        """Ask one device; not empty if that was not possible."""
        # Each attempt has an id of its own, so that a late answer of the first device cannot pass for the second's.
        trace.attempts += 1
        now = time.monotonic()
        attempt = trace.id if trace.attempts == 1 else f"{trace.id}.{trace.attempts}"
        message = self._message(attempt, route, trace, tensors, until - now)
        race.tried.add(route.device)
        blob = message.blob.digest if message.blob is not None else ""
        flight = Flight(attempt, route.device, trace.model, now, None, route.artifact, blob)
        race.add(flight, route)
        self.flights.begin(flight)
        if message.together:
            self._departures.add(route.device, message)
        else:
            self._leave(route.device, [message])
        return f"{route.device} did not answer in time"

    def _leave(self, device: str, requests: list[Infer]) -> None:
        """Send them in as few messages as they fit into."""
        several = len(requests) > 1  # The device begins while others are read.
        for message in together(requests, MAX_INLINE):
            if not self._bus.publish(topics.agent(device, "infer"), message, now=several):
                for request in message.each():
                    self._failed_to_leave(request.request)

    def _failed_to_leave(self, attempt: str) -> None:
        flight = self.flights.of(attempt)
        if flight is not None:
            self.flights.end(flight)
            if flight.landed is not None:
                flight.landed("the broker is not connected")

    def _look_at(self, race: Race, trace: Trace, now: float) -> float:
        """When something has to be done: once the newest attempt is late, again each time that it is so late once more,
        and once the oldest is given up."""
        newest, oldest = race.newest, race.oldest
        given_up = oldest.sent + self._limits.attempt_s + _SURELY_S
        late_ms = newest.pace.late_ms()
        if late_ms is None or trace.attempts >= self._limits.attempts:
            return given_up
        late_s = late_ms / 1000
        return min(given_up, now + late_s - (now - newest.sent) % late_s + _SURELY_S)

    def _late(self, race: Race, trace: Trace, tensors: tuple[Tensor, ...], until: float) -> str:
        """Nothing came in time: give up what is too old, else ask another device as well, if one is free for it."""
        oldest = race.oldest
        if time.monotonic() - oldest.sent >= self._limits.attempt_s:
            del race.flying[oldest.id]
            oldest.landed = None
            return f"{oldest.device} did not answer in time"
        if trace.attempts >= self._limits.attempts:
            return ""
        fresh = [c for c in self._some(trace) if c.device not in race.tried]
        route = routing.choose(fresh, frozenset(), self._draw())
        if isinstance(route, NoRoute) or not self._spare.take():
            return ""
        trace.step("result?", f"not yet: {oldest.device} is late; {route.device} is asked as well")
        return self._send(race, trace, route, tensors, until)

    def _failed(self, flight: Flight, how: Landed) -> str:
        """An attempt ended without an answer; returns why. Raises BadRequest where no other device could do better."""
        if isinstance(how, str):
            return how
        if how.fault is None:
            return f"{flight.device} serves version {how.version} by now"
        if how.fault.who == "user":
            raise BadRequest(how.fault.message)
        return f"{flight.device}: {how.fault.message}"

    async def _first_route(self, trace: Trace, wait_s: float) -> Route:
        """Where the model is not on any device yet, its way there belongs to the step."""
        done = ""
        try:
            try:
                route = await self._route(trace, frozenset())
            except Busy as error:
                # What would be prepared need not be the one version that is asked for.
                if trace.only or trace.state == _NO_ROOM:
                    raise
                self._preparing += 1
                try:
                    done = f"not yet: {await self._directory.prepare(trace.model, wait_s, error)}; then "
                finally:
                    self._preparing -= 1
                # All who waited come at once: they were let in before, and are not turned away now.
                route = await self._route(trace, frozenset(), admitted=True)
        except LeptaError as error:
            trace.step("optimized?", f"no: {error.message}")
            raise
        trace.step("optimized?", f"{done}yes: artifact {route.artifact[:12]}")
        return route

    async def _route(self, trace: Trace, tried: frozenset[str], *, admitted: bool = False) -> Route:
        """`admitted`: full windows do not turn the request away."""
        self.flights.forget_old(time.monotonic())
        model, draw = trace.model, self._draw()
        some = self._some(trace)
        route = routing.choose(some, tried, draw, admitted=admitted)
        if isinstance(route, NoRoute):
            everyone = routing.of_version(self._directory.candidates(model), trace.only)
            route = routing.choose(everyone, tried, draw, admitted=admitted)
        if isinstance(route, Route):
            if not admitted:
                self._check_share(trace, some)
            return route
        if route.full:
            drain_ms = min((self.flights.pace(c.device, model).drain_ms() for c in some), default=1000.0)
            self._refuse(trace, f"the devices that serve {model} have all that they can do in time", drain_ms / 1000)
        if not await self._directory.exists(model):
            raise NotFound(f"no model is called {model[:80]!r}", "lepta model ls")
        asked = f"{model} version {trace.only}" if trace.only else model
        raise Busy(f"no device can answer for {asked}: {'; '.join(route.reasons)}", "lepta device ls")

    def _some(self, trace: Trace) -> list[Candidate]:
        return routing.of_version(self._directory.serving(trace.model), trace.only)

    def _check_share(self, trace: Trace, devices: list[Candidate]) -> None:
        """Raises TooMany for a caller who has more than his share while there is little room for others."""
        if len(self._callers) < 2:
            return
        room, held = sum(c.window for c in devices), sum(c.held for c in devices)
        mine = self._callers.of(trace.caller)
        if over_share(Room(room, held, mine, self.house.held, len(self._callers))):
            trace.state = _NO_ROOM
            raise TooMany("you have more requests under way than your share of what the devices can do", retry_s=1.0)

    def _refuse(self, trace: Trace, message: str, retry_s: float) -> NoReturn:
        trace.state = _NO_ROOM
        raise Busy(message, _LATER, retry_s=retry_s)

    def _message(self, attempt: str, route: Route, trace: Trace, tensors: tuple[Tensor, ...], left_s: float) -> Infer:
        small = trace.bytes <= MAX_INLINE
        return Infer(
            request=attempt,
            model=trace.model,
            artifact=route.artifact,
            ttl_ms=left_s * 1000,
            inputs=tensors if small else (),
            blob=None if small else self._keep_blob(encode_tensors(tensors)),
            traceparent=trace.traceparent,
            together=small and route.together > 1,
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
        trace.step("result?", "yes")
