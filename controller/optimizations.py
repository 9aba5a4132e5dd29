"""Optimizer runs: a queue, one optimizer process at a time, its progress handed on.

The process is started by the first request and kept, because importing TensorFlow takes ten seconds; after some minutes
without work it is stopped. One that dies costs the run it was at; the next run gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.contract import children
from controller.errors import Busy, LeptaError
from controller.optimizer_child import Message, OptimizerChild
from controller.settings import Limits

log = logging.getLogger("lepta.optimizations")

OnEvent = Callable[[str, dict[str, Any]], None]
OnBegin = Callable[[str], Awaitable[None]]
_LAST = ("done", "failed")


@dataclass
class _Request:
    id: str
    message: Message
    out: Path
    run: dict[str, Any] | None = None
    """Content of run.json, beside `out`."""
    cancelled: bool = False


class Optimizations:
    """Owned by the event loop. Requests are served in their order."""

    def __init__(
        self,
        logs: Path,
        limits: Limits,
        on_event: OnEvent,
        command: Sequence[str] | None = None,
        on_begin: OnBegin | None = None,
    ) -> None:
        """`on_event(id, event)` gets every `progress` and exactly one `done` or `failed` per request, none once it is
        cancelled. `command` starts the optimizer. `on_begin(id)` is awaited before the optimizer gets a request."""
        self._log_file = logs / "optimizer.log"
        self._limits = limits
        self._on_event = on_event
        self._on_begin = on_begin
        self._command = list(command or children.command("optimizer.__main__"))
        self._waiting: deque[_Request] = deque()
        self._current: _Request | None = None
        self._child: OptimizerChild | None = None
        self._wake = asyncio.Event()
        self._server: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._server = asyncio.create_task(self._serve(), name="optimizations")

    async def stop(self) -> None:
        """End the optimizer; what it was at is not told as failed: it can be submitted again."""
        if self._server is not None:
            self._server.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._server
            self._server = None
        await self._end_child()

    def submit(self, run_id: str, run: dict[str, Any], out: Path) -> None:
        """Queue a run: `run` becomes run.json beside `out`, `out` is made anew. Raises Busy if too many wait."""
        spec = out.parent / "run.json"
        self._queue(_Request(run_id, {"id": run_id, "do": "optimize", "run": str(spec), "out": str(out)}, out, run))

    def example(self, example_id: str, name: str, out: Path, options: dict[str, Any]) -> None:
        """Queue the making of a built-in example in `out`. Raises Busy if too many wait."""
        message = {"id": example_id, "do": "example", "name": name, "out": str(out), "options": options}
        self._queue(_Request(example_id, message, out))

    def cancel(self, request_id: str) -> None:
        """Take a request back; nothing more is told about it. One that ended already is left alone."""
        waiting = next((request for request in self._waiting if request.id == request_id), None)
        if waiting is not None:
            self._waiting.remove(waiting)
        elif self._current is not None and self._current.id == request_id and not self._current.cancelled:
            self._current.cancelled = True
            if self._child is not None:
                self._child.send({"id": request_id, "do": "cancel"})
                asyncio.get_running_loop().call_later(
                    self._limits.optimizer_cancel_s, self._insist, self._current, self._child
                )

    @property
    def running(self) -> bool:
        """Is there an optimizer process?"""
        return self._child is not None and self._child.alive

    def _queue(self, request: _Request) -> None:
        if len(self._waiting) >= self._limits.runs_waiting:
            raise Busy("too many optimizer runs are waiting", "wait for some to end")
        self._waiting.append(request)
        self._wake.set()

    async def _serve(self) -> None:
        while True:
            await self._something_to_do()
            self._current = self._waiting.popleft()
            await self._run(self._current)
            self._current = None

    async def _something_to_do(self) -> None:
        """Wait for it; an optimizer that waits too long is stopped."""
        while not self._waiting:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._limits.optimizer_idle_s if self._child is not None else None):
                    await self._wake.wait()
            except TimeoutError:
                await self._end_child()

    async def _run(self, request: _Request) -> None:
        try:
            await asyncio.to_thread(_lay_out, request)
            if self._on_begin is not None:
                await self._on_begin(request.id)
            if request.cancelled:
                return
            child = await self._ready_child()
            child.send(request.message)
            while (event := await child.read()).get("event") not in _LAST or event.get("id") != request.id:
                self._tell(request, event)
            self._tell(request, event)
        except (LeptaError, OSError) as error:
            await self._end_child()
            message = error.message if isinstance(error, LeptaError) else f"the run's folder cannot be written: {error}"
            self._tell(request, {"id": request.id, "event": "failed", "who": "us", "error": message})

    async def _ready_child(self) -> OptimizerChild:
        if self._child is not None and not self._child.alive:
            await self._end_child()
        if self._child is None:
            self._child = await OptimizerChild.start(self._command, self._log_file, self._limits)
        return self._child

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()

    def _tell(self, request: _Request, event: Message) -> None:
        # Events of a request that was cancelled before may still come.
        if request.cancelled or event.get("id") != request.id:
            return
        try:
            self._on_event(request.id, event)
        except Exception:
            log.exception("an optimizer's event could not be handled")

    def _insist(self, request: _Request, child: OptimizerChild) -> None:
        if self._current is request and self._child is child:
            child.kill()


def _lay_out(request: _Request) -> None:
    """Make `out` anew: an earlier try may have left half of it."""
    shutil.rmtree(request.out, ignore_errors=True)
    request.out.mkdir(parents=True)
    if request.run is not None:
        spec = request.out.parent / "run.json"
        temporary = spec.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(request.run))
        temporary.replace(spec)
