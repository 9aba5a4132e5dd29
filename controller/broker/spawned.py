"""A broker as our child: restarted on the same port when it dies, gone when we are gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import replace
from typing import Protocol

from agent.contract import children
from controller.broker.config import Lan, Listen
from controller.broker.hello import hello
from controller.broker.port import Admission, BrokerError, Kind
from controller.broker.ports import check_free, free_port
from controller.errors import LeptaError
from controller.settings import Settings

log = logging.getLogger("lepta.broker")

_TRIES = 5
# Capital: no device's and no client's name begins with one.
_READY_ID = "Lepta-ready"
_LOG_CHECK_S = 60.0
# Chunks of blobs lie just below the size from which glibc gives memory back at once: kept, they add up by subscriber.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}


class Program(Protocol):
    """A broker that can be started here."""

    def prepare(self, listen: Listen, lan: Lan | None) -> tuple[list[str], str]:
        """Write its configuration; return the command and the line for its stdin."""

    def admit(self, admission: Admission) -> None:
        """Write down who may come in from other machines."""


class Spawned:
    """Owned by the event loop."""

    tls = False

    def __init__(self, kind: Kind, program: Program, listen: Listen, lan: Lan | None, settings: Settings) -> None:
        """Ports that are 0 take free ones. `lan`: who listens for other machines needs to be told who may `admit`."""
        self.kind = kind
        self.host, self.port, self.username, self.password = listen.host, listen.port, listen.username, listen.password
        self.path = listen.path
        self._lan = lan
        self.agents_port, self.clients_port = (lan.agents_port, lan.clients_port) if lan else (0, 0)
        self._admitted = lan is None
        self._stale = False
        self._program = program
        self._log_file = settings.data / "logs" / "broker.log"
        self._port_file = settings.data / "broker" / "port"
        self._limits = settings.limits
        self._process: asyncio.subprocess.Process | None = None
        self._serving = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._serving and self._process is not None and self._process.returncode is None

    def admit(self, admission: Admission) -> None:
        if self._lan is None:
            return
        try:
            self._program.admit(admission)
        except (OSError, ValueError) as error:
            raise BrokerError(f"the broker cannot be told who may come in: {error}", "check the disk") from error
        self._admitted = self._stale = True
        if self._serving:
            self._read_anew()

    async def expel(self, name: str) -> None:
        """Take the session over: a client id lives once, and only this listener lets it be chosen."""
        if self._lan is None or not self.alive:
            return
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await hello(self.host, self.port, name, self.username, self.password)
        except (OSError, BrokerError, TimeoutError) as error:
            log.warning("%s could not be put out: %s", name, error)

    async def start(self) -> None:
        if not self._admitted:
            raise BrokerError("nobody told the broker who may come in", "this is a bug of Lepta; please report it")
        given = self.port or self._remembered()
        self._log_file.parent.mkdir(mode=0o700, exist_ok=True)
        self._log_file.unlink(missing_ok=True)
        for left in reversed(range(_TRIES)):
            self.port = given or free_port(self.host)
            check_free(self.host, self.port)
            self._choose_lan_ports()
            try:
                await self._launch()
                break
            except LeptaError:
                # Somebody else may have taken the free port in between.
                if given or not left:
                    raise
        self._port_file.write_text(f"{self.port}\n")
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._end()

    def _choose_lan_ports(self) -> None:
        if self._lan is None:
            return
        host, wanted = self._lan.host, (self._lan.agents_port, self._lan.clients_port)
        self.agents_port, self.clients_port = (port or free_port(host) for port in wanted)
        for port in (self.agents_port, self.clients_port):
            check_free(host, port)

    def _remembered(self) -> int:
        """The port of the last start, which enrolled agents know; 0 at the first."""
        try:
            return int(self._port_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    async def _launch(self) -> None:
        self._stale = False
        lan = self._lan and replace(self._lan, agents_port=self.agents_port, clients_port=self.clients_port)
        listen = Listen(self.host, self.port, self.username, self.password, self.path)
        command, line = self._program.prepare(listen, lan)
        with self._log_file.open("ab") as output:
            # A process group of its own: Ctrl-C in a terminal must not end the broker before we said goodbye.
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=children.environment(_MEMORY),
                start_new_session=True,
            )
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line.encode() + b"\n")
            await self._ready(self._process)
            if self.path:
                with contextlib.suppress(OSError):  # mosquitto lets its group in.
                    os.chmod(self.path, 0o600)
            self._serving = True
        except BaseException:
            await self._end()
            raise
        if self._stale:
            self._read_anew()

    def _read_anew(self) -> None:
        """mosquitto reads lists of users, rights, revocations and its certificate again, and keeps its clients."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._limits.broker_start_s):
                while process.returncode is None:
                    with contextlib.suppress(OSError):
                        # Its answer says that it is past its start: it knows its signals too.
                        await hello(self.host, self.port, _READY_ID, self.username, self.password)
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise self._failed("did not start in time") from error
        raise self._failed(f"ended at its start with code {process.returncode}")

    async def _keep(self) -> None:
        """Start it again whenever it dies, on the same port, with growing pauses."""
        pause = self._limits.broker_restart_first_s
        loop = asyncio.get_running_loop()
        while True:
            if self._process is not None:
                began = loop.time()
                code = await self._ended(self._process)
                self._serving = False
                if loop.time() - began > self._limits.broker_restart_most_s:
                    pause = self._limits.broker_restart_first_s
                log.warning("the %s broker ended with code %s; starting it again in %.1f s", self.kind, code, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._limits.broker_restart_most_s)
            try:
                await self._launch()
            except (LeptaError, OSError) as error:
                log.warning("%s", error)

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Its exit code, once it has one. Strangers make it complain: its log stays small meanwhile."""
        while True:
            try:
                async with asyncio.timeout(_LOG_CHECK_S):
                    return await process.wait()
            except TimeoutError:
                if self._log_file.stat().st_size > self._limits.broker_log_bytes:
                    os.truncate(self._log_file, 0)

    async def _end(self) -> None:
        process, self._process, self._serving = self._process, None, False
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._limits.broker_stop_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.wait()

    def _failed(self, what: str) -> BrokerError:
        said = self._log_file.read_text(errors="replace").strip().splitlines()[-3:]
        detail = f": {' / '.join(said)}" if said else ""
        return BrokerError(f"the {self.kind} broker {what}{detail}", f"see {self._log_file}")
