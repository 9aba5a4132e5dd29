"""The optimizer's process: JSON lines in and out, started when needed, gone when we are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.contract import children
from controller.errors import Internal
from controller.settings import Limits

Message = dict[str, Any]
# How long what was said before the end may still be on its way when somebody else holds the pipe.
_LAST_WORDS_S = 0.5


class ChildDied(Internal):
    """The optimizer ended, or said what cannot be understood; it is of no use any more."""


class OptimizerChild(asyncio.SubprocessProtocol):
    """One process and the whole of its family. Made by `start`."""

    def __init__(self, log_file: Path, limits: Limits) -> None:
        self._log_file = log_file
        self._limits = limits
        self._transport: asyncio.SubprocessTransport
        self._rest = b""
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._exited = asyncio.Event()
        self._flooded = False

    @classmethod
    async def start(cls, command: Sequence[str], log_file: Path, limits: Limits) -> OptimizerChild:
        """Raises ChildDied if there is no such program."""
        log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log_file.open("wb") as errors:
            try:
                # A process group of its own: Ctrl-C is for us, and the whole family can be ended at once.
                _, child = await asyncio.get_running_loop().subprocess_exec(
                    lambda: cls(log_file, limits),
                    *command,
                    stderr=errors,
                    env=children.environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise ChildDied(f"the optimizer cannot be started: {error}") from error
        return child

    @property
    def alive(self) -> bool:
        return not self._exited.is_set() and not self._flooded

    def send(self, message: Message) -> None:
        """Say something to it; one that is gone does not hear it, `read` tells."""
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(msgspec.json.encode(message) + b"\n")

    async def read(self) -> Message:
        """What it says next; raises ChildDied."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
            raise await self._death()
        try:
            message = msgspec.json.decode(line, type=Message)
        except msgspec.DecodeError as error:
            raise ChildDied(f"the optimizer said what cannot be understood: {line[:80]!r}") from error
        return message

    async def end(self) -> None:
        """End it and whatever it started; first by the end of its input, then by force."""
        pipe = self._transport.get_pipe_transport(0)
        if pipe is not None:
            pipe.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.optimizer_stop_s):
                await self._exited.wait()
        self.kill()
        await self._exited.wait()
        self._transport.close()

    def kill(self) -> None:
        """At once, with its family."""
        if not self._exited.is_set():
            self._kill_family()

    # -- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line)
        if len(self._rest) > self._limits.optimizer_line_bytes or self._lines.qsize() > self._limits.optimizer_lines:
            self._flooded = True
            self._rest = b""
            self.kill()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._lines.put_nowait(None)

    def process_exited(self) -> None:
        # Its own children are in its group, and one that it left behind would hold our pipe open.
        self._kill_family()
        self._exited.set()
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._lines.put_nowait, None)

    def _kill_family(self) -> None:
        pid = self._transport.get_pid()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    async def _death(self) -> ChildDied:
        if self._flooded:
            return ChildDied(f"the optimizer said more than {self._limits.optimizer_line_bytes} bytes at once")
        await self._exited.wait()
        code = self._transport.get_returncode() or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        said = self._log_file.read_text(errors="replace").strip().splitlines()[-1:]
        detail = f": {said[0][:300]}" if said else ""
        return ChildDied(f"the optimizer {how}{detail}", f"see {self._log_file}")
