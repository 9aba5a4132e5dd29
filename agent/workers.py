"""The supervisor's port to worker processes, and the real ones behind it: forked by the zygote, one pipe each."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from agent import frames, priority
from agent.contract import children
from agent.loop import Loop, Timer

_log = logging.getLogger("lepta.agent.workers")
_PIPE_BYTES = 1 << 20
_STATUS_WAIT_S = 0.3


class Exited(msgspec.Struct, frozen=True):
    """The worker is gone and its memory returned. `reason` is empty after a drain."""

    reason: str
    orphaned: bool = False
    """It went with the process that had forked it: its model has nothing to do with that."""


Event = frames.FromWorker | Exited


class Worker(Protocol):
    """A handle on one worker. Its events come to the listener given to `spawn`, on the loop; Exited is the last."""

    def compute(self, order: frames.Compute) -> None: ...

    def promote(self) -> None:
        """It serves from now on: a candidate need not stand behind any more."""

    def probe(self, order: frames.Probe) -> None: ...

    def compare(self, order: frames.Compare) -> None: ...

    def measure(self, order: frames.Measure) -> None: ...

    def drain(self) -> None:
        """Answer what it holds, then exit."""

    def kill(self) -> None:
        """End it now, whatever it does."""


Listener = Callable[[Worker, Event], None]


class Workers(Protocol):
    """Starts workers."""

    stored: bool
    """Can they answer as a model stores numbers?"""

    def spawn(self, start: frames.Start, listener: Listener, behind_s: float = 0.0) -> Worker:
        """Start a worker that loads `start`; Ready or Failed follows.

        It leaves the processors to everybody else until it is promoted, for at most `behind_s`.
        """

    def close(self) -> None:
        """End every worker and whatever starts them; nothing is left behind."""


class ZygoteWorkers:
    """Real processes. The zygote is started with the first worker (or by `warm`) and again if it dies."""

    stored = True

    def __init__(self, loop: Loop, runtimes: Sequence[str] = ("ai-edge-litert", "tflite-runtime")) -> None:
        self._loop = loop
        self._runtimes = tuple(runtimes)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._waiting_for_pid: dict[int, _ForkedWorker] = {}
        self._by_pid: dict[int, _ForkedWorker] = {}

    def warm(self) -> None:
        """Start the zygote now, so that its imports are done when the first worker is needed."""
        self._zygote()

    def spawn(self, start: frames.Start, listener: Listener, behind_s: float = 0.0) -> Worker:
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
        behind = behind_s > 0 and priority.may_step_back()
        worker = _ForkedWorker(self._loop, ours, listener, behind_s if behind else 0.0)
        self._waiting_for_pid[number] = worker
        with theirs:
            self._ask({"id": number, "behind": behind}, theirs)
        worker.send(start)
        return worker

    def close(self) -> None:
        for worker in [*self._by_pid.values(), *self._waiting_for_pid.values()]:
            worker.abandon()
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            self._loop.forget(control)
            control.close()
        if process is not None:
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ask(self, asked: dict[str, object], pipe: socket.socket) -> None:
        request = json.dumps(asked).encode()
        for _ in range(2):
            try:
                socket.send_fds(self._zygote(), [request], [pipe.fileno()])
                return
            except OSError:
                self._zygote_gone()

    def _zygote(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [*children.command("agent.zygote"), *self._runtimes],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=children.environment(),
                )
            ours.setblocking(False)
            self._control = ours
            self._loop.watch(ours, self._told)
        return self._control

    def _told(self) -> None:
        control = self._control
        while control is not None and control is self._control:
            try:
                packet = control.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._zygote_gone()
                return
            self._handle(json.loads(packet))

    def _handle(self, told: dict[str, object]) -> None:
        match told:
            case {"forked": int(pid), "id": int(number)}:
                worker = self._waiting_for_pid.pop(number)
                self._by_pid[pid] = worker
                worker.born(pid)
            case {"exited": int(pid), "status": int(status)}:
                exited = self._by_pid.pop(pid, None)
                if exited is not None:
                    exited.ended(_describe(status))
            case {"ready": False, "problem": str(problem)}:
                _log.error("workers cannot be started: %s", problem)
            case {"threads": int(threads)} if threads > 1:
                _log.warning("the fork parent has %d threads, forking may hang: report this", threads)

    def _zygote_gone(self) -> None:
        """The kernel has ended its workers too (PDEATHSIG); tell everybody."""
        if self._control is not None:
            self._loop.forget(self._control)
            self._control.close()
        if self._process is not None:
            self._process.kill()
            status = self._process.wait()
            _log.warning("the fork parent ended (%s); a new one starts when needed", _describe(status) or "status 0")
        self._control = self._process = None
        orphans = [*self._by_pid.values(), *self._waiting_for_pid.values()]
        self._by_pid.clear()
        self._waiting_for_pid.clear()
        for worker in orphans:
            self._loop.call_soon(lambda worker=worker: worker.ended("its fork parent ended", orphaned=True))  # type: ignore[misc]


class _ForkedWorker:
    """Our end of one worker's pipe."""

    def __init__(self, loop: Loop, sock: socket.socket, listener: Listener, behind_s: float) -> None:
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._listener = listener
        self._buffer = frames.Buffer()
        self._out = bytearray()
        self._pid: int | None = None
        self._behind_s = behind_s
        self._behind: Timer | None = None
        """Runs while the process stands behind."""
        self._killed = False
        self._draining = False
        self._garbage = ""
        self._last_word: Timer | None = None
        self._over = False
        loop.watch(sock, self._readable)

    def compute(self, order: frames.Compute) -> None:
        """All of a turn goes in one write: the worker answers as one what it finds together."""
        if self._sock is None:
            return  # As in `send`.
        if not self._out:
            self._loop.defer(self._flush_deferred)
        frames.add(self._out, order)

    def promote(self) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None
            if self._pid is not None:
                priority.step_forward(self._pid)

    def probe(self, order: frames.Probe) -> None:
        self.send(order)

    def compare(self, order: frames.Compare) -> None:
        self.send(order)

    def measure(self, order: frames.Measure) -> None:
        self.send(order)

    def drain(self) -> None:
        self._draining = True
        if self._sock is not None and not self._out:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        self._killed = True
        if self._pid is not None and not self._over:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.promote()  # Dying takes the processor too.

    def abandon(self) -> None:
        """End it without a word to anybody."""
        self.kill()
        self._over = True
        self._close()

    def send(self, frame: frames.ToWorker) -> None:
        if self._sock is None:
            return  # Its end has been noticed; Exited tells the supervisor.
        frames.add(self._out, frame)
        self._flush()

    def born(self, pid: int) -> None:
        self._pid = pid
        if self._behind_s > 0:
            self._behind = self._loop.call_later(self._behind_s, self.promote)
        if self._killed:
            self.kill()

    def ended(self, reason: str, *, orphaned: bool = False) -> None:
        """The process is gone; what it still said comes first."""
        if self._over:
            return
        self._pid = None
        self.promote()
        if self._sock is not None:
            self._readable()
        self._close()
        self._over = True
        if self._last_word is not None:
            self._last_word.cancel()
        self._listener(self, Exited(self._garbage or reason, orphaned))

    def _readable(self) -> None:
        while self._sock is not None:
            try:
                data = self._sock.recv(frames.READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close()
                return
            self._deliver(data)
            if len(data) < frames.READ:
                return

    def _deliver(self, data: bytes) -> None:
        try:
            for content in self._buffer.feed(data):
                self._listener(self, frames.decode_from_worker(content))
        except frames.FrameError as error:
            self._garbage = str(error)
            self.kill()
            self._close()

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._out)
            del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # Its end shows as end of file.
        if self._out:
            self._loop.watch(self._sock, self._readable, self._writable)

    def _flush_deferred(self) -> None:
        if self._sock is None:
            return
        self._flush()
        if not self._out and self._draining:
            self.drain()

    def _writable(self) -> None:
        if self._sock is None:
            return
        self._flush()
        if not self._out:
            self._loop.watch(self._sock, self._readable)
            if self._draining:
                self.drain()

    def _close(self) -> None:
        """Its pipe is closed: the exit status follows at once unless the zygote is gone too."""
        if self._sock is None:
            return
        self._loop.forget(self._sock)
        self._sock.close()
        self._sock = None
        if not self._over:
            self._last_word = self._loop.call_later(_STATUS_WAIT_S, self._no_status)

    def _no_status(self) -> None:
        self.kill()
        self.ended("" if self._draining else "its pipe was closed")


def _describe(status: int) -> str:
    if status == 0:
        return ""
    if status > 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
