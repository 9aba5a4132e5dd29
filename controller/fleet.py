"""The loop: drain the inbox, decide, commit once, then act.

Everything that changes the fleet's state runs here, in turn: messages of agents, commands of users, ends of background
work. A turn decides at most a few times a second; what it saves is on disk before anything is sent. Should a commit
fail, nothing of the turn was sent, and the state is read anew from the store.

Requests, answers, load samples and asked-for chunks do not pass through turns: they live in memory only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agent.contract.messages import (
    AgentStatus,
    Answer,
    Hello,
    Load,
    Message,
    MessageError,
    Need,
    Reported,
    Result,
    decode,
)
from agent.contract.topics import Topic
from controller.books import Books
from controller.candidates import Candidates, Traffic
from controller.delivery import Delivery
from controller.devices import Devices
from controller.drains import Drains
from controller.errors import Internal, LeptaError
from controller.inference import Inference
from controller.jobs import Broken, Jobs, Reduced
from controller.policies import Policies
from controller.recorder import Recorder
from controller.releases import Releases
from controller.routing import Candidate
from controller.runs import Built, Failed, Runs
from controller.settings import Limits
from controller.store import Store
from controller.tick import Tick

log = logging.getLogger("lepta.fleet")
T = TypeVar("T")

Handler = Callable[[Tick], Any]
Event = Built | Failed | Reduced | Broken


class Fleet:
    """Owns the loop. Its parts hold the state; see `controller.wiring` for how they are put together."""

    def __init__(
        self,
        *,
        store: Store,
        devices: Devices,
        releases: Releases,
        runs: Runs,
        jobs: Jobs,
        inference: Inference,
        delivery: Delivery,
        policies: Policies,
        books: Books,
        drains: Drains,
        recorder: Recorder,
        limits: Limits,
        restore: Callable[[Tick], Awaitable[None]],
        on_user_request: Callable[[str, bytes], None],
    ) -> None:
        """`restore` reads all state from the store; `on_user_request(model, payload)` takes what users publish."""
        self.store = store
        self.devices = devices
        self.releases = releases
        self.runs = runs
        self.jobs = jobs
        self.inference = inference
        self.delivery = delivery
        self.policies = policies
        self.books = books
        self._candidates = Candidates(devices, self._traffic)
        self.drains = drains
        self._recorder = recorder
        self._limits = limits
        self._restore = restore
        self._on_user_request = on_user_request
        self._inbox: list[tuple[Handler, asyncio.Future[Any] | None]] = []
        self._wake = asyncio.Event()
        self._flushed_at = 0.0
        self._loop: asyncio.Task[None] | None = None
        self.refused = 0
        """Messages dropped: garbage, repeats, strangers, overflow."""

    # -- life

    async def start(self) -> None:
        await self._reload()
        self._loop = asyncio.create_task(self._run(), name="fleet")

    async def stop(self) -> None:
        """Finish what is in the inbox and stop."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._put(self.runs.pause)
        # What is in memory only is written now or never.
        self._flushed_at = float("-inf")
        await self._turn()

    # -- what comes in

    async def do(self, command: Callable[[Tick], T]) -> T:
        """Run a command in the next turn; its result, or its error, comes when it is saved."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(command, future)
        return await future

    def deliver(self, topic: Topic, payload: bytes) -> None:
        """A message from the bus. Never raises: what cannot be used is counted and dropped."""
        if topic.kind == "models/infer":
            self._on_user_request(topic.names[0], payload)
            return
        if not topic.kind.startswith("agents/"):
            return
        device = topic.names[0]
        try:
            message = decode(topic.kind, payload)
        except MessageError as error:
            self.refused += 1
            log.debug("dropped a message of %s: %s", device, error)
            return
        if not self.devices.is_new(device, message):
            self.refused += 1
            return
        self._dispatch(device, message)

    def happened(self, event: Event) -> None:
        """Background work ended."""
        match event:
            case Built():
                self._put(lambda tick: self.runs.built(tick, event))
            case Failed():
                self._put(lambda tick: self.runs.failed(tick, event))
            case Reduced():
                self._put(lambda tick: self.jobs.reduced(tick, event))
            case Broken():
                self._put(lambda tick: self.jobs.broken(tick, event))

    def run_event(self, run_id: str, event: dict[str, Any]) -> None:
        """The optimizer told something about a run."""
        self._put(lambda tick: self.runs.event(tick, run_id, event))

    def candidates(self, model: str) -> list[Candidate]:
        """What every device could do for a model right now."""
        return self._candidates.all(model)

    def serving(self, model: str) -> list[Candidate]:
        """Devices that serve a model; of many, a few by chance."""
        return self._candidates.some(model, random.sample)

    def _traffic(self, device: str, model: str) -> Traffic:
        flights = self.inference.flights
        shards = self.jobs.outstanding(device) if self.jobs.busy else 0
        shard_ms = self.jobs.shard_ms(device) if shards else 0.0
        return Traffic(flights.outstanding(device), shards, shard_ms, flights.pace(device, model), time.monotonic())

    @staticmethod
    def wall() -> float:
        """Seconds since 1970, for people."""
        return time.time()

    def broker_lost(self) -> None:
        self.delivery.reconnected()
        self._put(self.devices.everybody_lost)

    def _dispatch(self, device: str, message: Message) -> None:
        match message:
            case Answer():
                for answer in message.each():
                    self.inference.answered(device, answer)
            case Load():
                if not self.devices.loaded(time.monotonic(), device, message):
                    self._put(lambda tick: self.devices.returned(tick, device))
            case Need():
                self.delivery.need(device, message)
            case Hello() if message.agent == device:
                self._put(lambda tick: self.devices.hello(tick, message))
            case Reported():
                self._put(lambda tick: self.devices.reported(tick, device, message))
            case Result():
                self._put(lambda tick: self.jobs.result(tick, device, message))
            case AgentStatus(online=False):
                if self.devices.goodbye(device, message):
                    self.inference.lost(device)  # A turn may be far off, and callers wait.
                self._put(lambda tick: self.devices.offline(tick, device, message))

    def _put(self, handler: Handler, future: asyncio.Future[Any] | None = None) -> None:
        if future is None and len(self._inbox) >= self._limits.inbox:
            self.refused += 1
            return
        self._inbox.append((handler, future))
        self._wake.set()

    # -- turns

    async def _run(self) -> None:
        pause = 1 / self._limits.decisions_per_s
        while True:
            began = time.monotonic()
            try:
                await self._turn()
            except LeptaError as error:
                log.error("the turn could not be saved: %s", error)
                await self._recover()
            except Exception:
                # A bug of ours must not stop the fleet; its traceback is the report.
                log.exception("a turn broke")
                await self._recover()
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))
            try:
                # Leases, silence and deadlines are looked at even when nothing comes in.
                async with asyncio.timeout(pause if self.jobs.busy or self.drains.busy else 1.0):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> None:
        self._wake.clear()
        inbox, self._inbox = self._inbox, []
        tick = Tick(time.monotonic(), time.time())
        done = [(future, self._handle(tick, handler, future)) for handler, future in inbox]
        self._look_around(tick)
        try:
            await self._commit(tick)
        except LeptaError as error:
            for future, _ in done:
                if future is not None and not future.done():
                    future.set_exception(error)
            raise
        for future, result in done:
            if future is not None and not future.done():
                future.set_result(result)
        for action in tick.actions:
            action()

    def _handle(self, tick: Tick, handler: Handler, future: asyncio.Future[Any] | None) -> Any:
        try:
            return handler(tick)
        except LeptaError as error:
            if future is None:
                log.warning("%s", error)
            else:
                future.set_exception(error)
        except Exception as error:
            # One broken event must not stop the fleet; its traceback is the bug report.
            log.exception("an event could not be handled")
            if future is not None:
                future.set_exception(Internal(f"something broke here: {error}", "see the controller's log"))
        return None

    def _look_around(self, tick: Tick) -> None:
        self.devices.check_silence(tick)
        self.releases.tick(tick)
        self.jobs.tick(tick)
        self.drains.tick(tick)
        if tick.now - self._flushed_at >= self._limits.requests_flush_s:
            self._flushed_at = tick.now
            self.books.flush(tick)

    async def _commit(self, tick: Tick) -> None:
        if tick.files:
            await asyncio.to_thread(_flush, tick)
        if tick.writes:
            await self.store.commit(tick.writes)

    async def _recover(self) -> None:
        """Begin again from the store, as soon as that can be read."""
        pause = 1 / self._limits.decisions_per_s
        while True:
            try:
                await self._reload()
                return
            except LeptaError as error:
                log.error("the state cannot be read anew: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._limits.reconnect_most_s)

    async def _reload(self) -> None:
        tick = Tick(time.monotonic(), time.time())
        await self._restore(tick)
        await self._commit(tick)
        for action in tick.actions:
            action()


def _flush(tick: Tick) -> None:
    for file in tick.files:
        if not file.closed:
            file.flush()
            os.fsync(file.fileno())
