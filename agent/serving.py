"""One model's workers: the one that serves, those that finish, and what waits for them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Literal, Protocol

from agent import batching, frames, orders
from agent.backoff import Backoff
from agent.contract.messages import Fault, Work
from agent.lines import Line, Waiting, blob_of, shard_key
from agent.load import ServiceTime
from agent.loop import Loop, Timer
from agent.pointers import Pointer
from agent.settings import Limits
from agent.workers import Event, Exited, Worker, Workers

_log = logging.getLogger("lepta.agent.serving")


class Observer(Protocol):
    """Who is told what the serving worker does."""

    def take_shard(self, key: tuple[str, int, int]) -> bool:
        """A shard is about to be computed; False if nobody wants it any more."""

    def answered(self, item: Waiting, computed: frames.Computed, member: Member | None) -> None: ...

    def serving_ready(self) -> None: ...

    def serving_lost(self, reason: str, orphaned: bool) -> None:
        """The serving worker ended by itself, or `orphaned` with what had forked it; a new one is started unless the
        observer sets another one first."""

    def serving_failed(self, failed: frames.Failed) -> None:
        """The serving version cannot be loaded; it is not tried again."""


class Member:
    """One worker with what it holds."""

    def __init__(self, pointer: Pointer, start: frames.Start) -> None:
        self.pointer = pointer
        self.start = start
        self.worker: Worker | None = None
        self.on_event: Callable[[Member, Event], None] = _nobody
        self.ready: frames.Ready | None = None
        self.holding: dict[int, Waiting] = {}
        self.measuring: dict[int, tuple[float, Callable[[float | None], None]]] = {}
        """When each was asked for, and who waits for it."""
        self.state: Literal["starting", "ready", "draining", "gone"] = "starting"
        self.timer: Timer | None = None

    def spawn(self, workers: Workers, behind_s: float = 0.0) -> None:
        self.worker = workers.spawn(self.start, self._event, behind_s)

    def end(self) -> None:
        """Now, without an event to anybody."""
        self.on_event = _nobody
        self.stop_timer()
        if self.worker is not None and self.state != "gone":
            self.worker.kill()

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _event(self, _worker: Worker, event: Event) -> None:
        if isinstance(event, frames.Ready):
            self.ready = event
            self.state = "ready"
        elif isinstance(event, Exited):
            self.state = "gone"
            self.stop_timer()
        self.on_event(self, event)


class Serving:
    """Feeds the serving worker from the line and brings its answers back."""

    def __init__(self, loop: Loop, workers: Workers, limits: Limits, observer: Observer) -> None:
        self._loop = loop
        self._workers = workers
        self._limits = limits
        self._observer = observer
        self._numbers = itertools.count(1)
        self._line = Line(limits.queue, limits.shards)
        self._leaving: list[Member] = []
        self._restart = Backoff(loop, limits.restart_first, limits.restart_most)
        self._down_since: float | None = None
        self._left: Callable[[], None] | None = None
        """Waits for the last old worker to be gone."""
        self.paused = False
        """Nobody serves for a while, and what comes waits."""
        self.member: Member | None = None
        self.service = ServiceTime()
        self.last_exit = 0.0
        """When an old worker had last finished and gone."""
        self._downtime = 0.0
        self.compared = False
        """A candidate is held against what is answered here."""
        self.answers = 0
        """Times that the serving worker answered anything, since the start."""

    def __len__(self) -> int:
        members = [*self._leaving, *([self.member] if self.member else [])]
        return len(self._line) + sum(len(member.holding) for member in members)

    def blobs(self) -> set[str]:
        """Digests of the inputs of what waits or is being computed."""
        members = [*self._leaving, *([self.member] if self.member else [])]
        held = (blob_of(item) for member in members for item in member.holding.values())
        return self._line.blobs().union(*held)

    @property
    def down(self) -> bool:
        """One should serve, and none is ready."""
        return self._down_since is not None

    @property
    def downtime(self) -> float:
        """Seconds without a ready worker while one should serve, since the start."""
        return self._downtime + (self._loop.now() - self._down_since if self._down_since is not None else 0.0)

    @property
    def leaving(self) -> int:
        """Old workers that have not exited yet."""
        return len(self._leaving)

    def memories_mb(self) -> list[float]:
        """What the serving worker and each that leaves took at its probe; 0 where that is not known."""
        return [m.pointer.memory_mb for m in [*self._leaving, *([self.member] if self.member else [])]]

    def offer(self, item: Waiting) -> None:
        """Queue a request or shard; without room, or nobody to serve it, it is answered with a fault."""
        if self.member is None and not self.paused:
            self._refuse(item, "the model is not served here")
        elif not self._line.offer(item):
            self._refuse(item, "the queue of this device is full")
        else:
            self._pump()

    def drop_shard(self, key: tuple[str, int, int]) -> None:
        self._line.drop_shard(key)

    def begin(self, member: Member) -> None:
        """Serve with a worker that is still to be started."""
        self._leave()
        self._end_pause()
        self.member = member
        if self._down_since is None:
            self._down_since = self._loop.now()
        self._spawn(member)

    def route(self, member: Member) -> None:
        """Serve with this ready worker from now on; the old one finishes what it holds and exits."""
        self._leave()
        self._end_pause()
        member.stop_timer()
        member.on_event = self._event
        self.member = member
        if member.worker is not None:
            member.worker.promote()
        self._serves()

    def pause(self, left: Callable[[], None]) -> None:
        """Let the worker finish what it holds and go, and tell when it is gone. What comes waits for begin or route."""
        if self._down_since is None:
            self._down_since = self._loop.now()
        self._leave()
        self.paused, self._left = True, left
        self._tell_left()

    def stop(self) -> None:
        """Take nothing more, finish what workers hold."""
        self.paused, self._left = False, None
        old = self.member
        self.member = None
        if old is not None:
            self._retire(old)
        for item in self._line.clear():
            self._refuse(item, "the model is not served here any more")

    def measure(self, runs: int, done: Callable[[float | None], None]) -> None:
        """Median milliseconds of one row in the serving worker; None without one."""
        member = self.member
        if member is None or member.ready is None or member.worker is None:
            done(None)
            return
        number = next(self._numbers)
        member.measuring[number] = (self._loop.now(), done)
        self._look_after(member)
        member.worker.measure(frames.Measure(id=number, runs=runs))

    @property
    def live(self) -> bool:
        """Has it a worker that should answer?"""
        return self.member is not None and self.member.state == "ready"

    def prod(self, done: Callable[[], None]) -> None:
        """Have the worker run its model once; `answers` counts it. One that never answers is ended as any other."""
        if self.member is not None and self.live and not self.member.measuring:
            self.measure(1, lambda _: done())

    # -- workers

    def _spawn(self, member: Member) -> None:
        member.on_event = self._event
        member.timer = self._loop.call_later(self._limits.start, lambda: self._stuck(member))
        member.spawn(self._workers)

    def _event(self, member: Member, event: Event) -> None:
        match event:
            case frames.Computed():
                self._computed(member, event)
            case frames.Measured():
                self._measured(member, event)
            case frames.Ready():
                member.stop_timer()
                if member is self.member:
                    self._serves()
                    self._observer.serving_ready()
            case frames.Failed():
                self._failed(member, event)
            case Exited():
                self._exited(member, event)

    def _serves(self) -> None:
        if self._down_since is not None:
            self._downtime += self._loop.now() - self._down_since
            self._down_since = None
        self._pump()

    def _failed(self, member: Member, failed: frames.Failed) -> None:
        if member is self.member:
            self.member = None
            member.end()
            self._observer.serving_failed(failed)  # It begins another version or stops; what waits, waits for that.

    def _exited(self, member: Member, exited: Exited) -> None:
        reason = exited.reason
        held = list(member.holding.values())
        member.holding.clear()
        if member in self._leaving:
            self._leaving.remove(member)
            self.last_exit = self._loop.now()
            self._tell_left()
        self._retry(held, reason)
        measuring = [done for _, done in member.measuring.values()]
        member.measuring.clear()
        for done in measuring:
            done(None)
        if member is not self.member:
            self._pump()
            return
        _log.warning("worker of %s %s ended: %s", member.start.model, member.pointer.wanted.version, reason or "exit")
        self._down_since = self._loop.now()
        self._observer.serving_lost(reason or "it exited", exited.orphaned)
        if self.member is member:
            self._replace(member)

    def _replace(self, member: Member) -> None:
        """Start the same version again, a little later each time."""
        fresh = self.member = Member(member.pointer, member.start)
        self._restart.later(lambda: self._spawn(fresh) if self.member is fresh else None)

    def _leave(self) -> None:
        self._restart.cancel()
        if self.member is not None:
            self._retire(self.member)
            self.member = None

    def _retire(self, member: Member) -> None:
        member.stop_timer()
        if member.worker is None or member.state == "gone":
            return
        if member.state == "starting":
            member.end()
            return
        member.state = "draining"
        self._leaving.append(member)
        member.worker.drain()
        member.timer = self._loop.call_later(self._limits.drain, member.worker.kill)

    def _end_pause(self) -> None:
        self.paused, self._left = False, None

    def _tell_left(self) -> None:
        if self._left is not None and not self._leaving:
            left, self._left = self._left, None
            self._loop.call_soon(left)

    def _stuck(self, member: Member) -> None:
        _log.warning("a worker of %s does nothing for too long; it is ended", member.start.model)
        if member.worker is not None:
            member.worker.kill()

    # -- requests

    def _pump(self) -> None:
        """Keep the worker's pipe filled; but a shard goes in alone, so that a request never waits for two."""
        line = self._line
        if not line.requests and not line.shards:
            return  # As after most answers.
        member, now, limits = self.member, self._loop.now(), self._limits
        most = batching.depth(self.service.ms, limits.batch_wait_ms, limits.pipeline, limits.batch)
        while member is not None and member.state == "ready" and len(member.holding) < most:
            if not line.requests and not line.shards:
                return
            if member.holding and (line.suspect or next(iter(member.holding.values())).retried):
                return  # One that a dead worker held goes in alone, so that it takes no other with it again.
            item = line.take(now, shards=not member.holding)
            if item is None:
                return
            if not item.is_shard or self._wants(item, member):
                self._send(member, item, now)

    def _wants(self, item: Waiting, member: Member) -> bool:
        """Is this shard still leased, and meant for what serves here?"""
        work = item.message
        assert isinstance(work, Work)
        assert member.ready is not None
        if not self._observer.take_shard(shard_key(item)):
            return False
        if work.artifact != member.pointer.wanted.artifact:
            self._refuse(item, f"artifact {work.artifact[:12]} is not what serves here")
            return False
        if work.runtime and work.runtime != member.ready.family:
            self._refuse(item, f"{member.ready.family} serves here, the job wants {work.runtime}")
            return False
        return True

    def _send(self, member: Member, item: Waiting, now: float) -> None:
        number = next(self._numbers)
        member.holding[number] = item
        item.sent = now
        self._look_after(member)
        assert member.worker is not None
        member.worker.compute(orders.compute(number, item, tensors=self.compared))

    def _look_after(self, member: Member) -> None:
        """One timer per worker, not per request."""
        if member.timer is None:
            member.timer = self._loop.call_later(self._limits.compute, lambda: self._check_stuck(member))

    def _check_stuck(self, member: Member) -> None:
        """Look again when the oldest could be overdue."""
        member.timer = None
        asked = [*(item.sent for item in member.holding.values()), *(asked for asked, _ in member.measuring.values())]
        if not asked or member.state != "ready":
            return
        oldest = min(asked)
        left = oldest + self._limits.compute - self._loop.now()
        if left <= 0:
            self._stuck(member)
        else:
            member.timer = self._loop.call_later(left, lambda: self._check_stuck(member))

    def _computed(self, member: Member, computed: frames.Computed) -> None:
        item = member.holding.pop(computed.id, None)
        self.answers += member is self.member
        self._pump()  # The worker goes on while the answer is sent.
        if item is None:
            return
        self._restart.reset()
        self.service.add(computed.rows, computed.service_ms)
        self._observer.answered(item, computed, member)

    def _measured(self, member: Member, measured: frames.Measured) -> None:
        self.answers += member is self.member
        asked = member.measuring.pop(measured.id, None)
        if asked is not None:
            asked[1](measured.median_ms)

    def _retry(self, held: list[Waiting], reason: str) -> None:
        """What a dead worker held is tried once more; a request that ends workers must not end them for ever."""
        once = [item for item in held if not item.retried]
        for item in once:
            item.retried = True
        self._line.give_back(once)
        for item in held:
            if item not in once:
                self._refuse(item, f"the worker ended twice while computing this ({reason})")

    def _refuse(self, item: Waiting, reason: str) -> None:
        self._observer.answered(item, frames.Computed(id=0, fault=Fault(who="device", message=reason)), self.member)


def _nobody(_member: Member, _event: Event) -> None:
    return
