"""The MQTT broker behind one face: embedded (iotcore), a mosquitto of our own, or one that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import logging
import os
import random
import secrets
import shutil
import socket
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from agent.contract import children
from agent.contract.signing import write_secret
from controller import broker_config, guard
from controller.broker_config import Listen
from controller.errors import Conflict, Internal, LeptaError, UserError
from controller.settings import Limits, Settings

log = logging.getLogger("lepta.broker")

Kind = Literal["embedded", "mosquitto", "external"]
USERNAME = "lepta"
_KINDS = "auto, embedded, mosquitto or mqtt://[USER:PASSWORD@]HOST[:PORT]"
_TRIES = 5
_PORTS = range(20_000, 32_000)


class BrokerError(Internal):
    """A broker that does not start or cannot be reached."""


class Broker(Protocol):
    """`port` and the rest are final once `start` has returned."""

    kind: Kind
    host: str
    port: int
    username: str
    password: str

    @property
    def alive(self) -> bool:
        """Does it run, as far as we know?"""

    async def start(self) -> None:
        """Return when it accepts connections; raises LeptaError with what to do otherwise."""

    async def stop(self) -> None:
        """End it, if it is ours. Safe to call twice."""


def create(settings: Settings, password: str) -> Broker:
    """The broker that the settings ask for; `password` is for one of our own. Raises UserError if that cannot be."""
    kind = settings.broker
    if kind == "auto":
        kind = "mosquitto" if find_mosquitto() else "embedded"
    if kind == "embedded":
        return Spawned("embedded", _Embedded(settings), _listen(settings, password), settings)
    if kind == "mosquitto":
        return Spawned("mosquitto", _Mosquitto(settings), _listen(settings, password), settings)
    return external(kind, settings.limits)


def find_mosquitto() -> str | None:
    """The program, also where it lies outside of an ordinary user's PATH."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("mosquitto", path=path)


def external(address: str, limits: Limits) -> External:
    """A broker by its address; raises UserError if that is none."""
    try:
        parts = urlsplit(address)
        port = parts.port or 1883
    except ValueError as error:
        raise UserError(f"the broker's address is not usable: {error}", f"use {_KINDS}") from error
    if parts.scheme == "mqtts":
        raise UserError("mqtts:// is not supported yet", "use mqtt:// on a network that you trust")
    if parts.scheme != "mqtt" or not parts.hostname:
        raise UserError("that is no broker", f"use {_KINDS}")
    return External(parts.hostname, port, unquote(parts.username or ""), unquote(parts.password or ""), limits)


class External:
    """Somebody else's broker: checked at the start, never stopped."""

    kind: Kind = "external"

    def __init__(self, host: str, port: int, username: str, password: str, limits: Limits) -> None:
        self.host, self.port, self.username, self.password = host, port, username, password
        self._limits = limits
        self.alive = False

    async def start(self) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await _knock(self.host, self.port)
        except (OSError, TimeoutError) as error:
            why = str(error) or "no answer"
            raise BrokerError(
                f"the broker at {self.host}:{self.port} cannot be reached: {why}",
                "check the address and that it runs, or use --broker embedded",
                who="network",
            ) from error
        self.alive = True

    async def stop(self) -> None:
        self.alive = False


class Program(Protocol):
    """A broker that can be started here."""

    def prepare(self, listen: Listen) -> tuple[list[str], str]:
        """Write its configuration; return the command and the line for its stdin."""


class Spawned:
    """A broker as our child: restarted on the same port when it dies, gone when we are gone."""

    def __init__(self, kind: Kind, program: Program, listen: Listen, settings: Settings) -> None:
        """`listen.port` 0 takes a free one."""
        self.kind = kind
        self.host, self.port, self.username, self.password = listen.host, listen.port, listen.username, listen.password
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

    async def start(self) -> None:
        given = self.port or self._remembered()
        self._log_file.parent.mkdir(mode=0o700, exist_ok=True)
        self._log_file.unlink(missing_ok=True)
        for left in reversed(range(_TRIES)):
            self.port = given or _free_port(self.host)
            _check_free(self.host, self.port)
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

    def _remembered(self) -> int:
        """The port of the last start, which enrolled agents know; 0 at the first."""
        try:
            return int(self._port_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    async def _launch(self) -> None:
        command, line = self._program.prepare(Listen(self.host, self.port, self.username, self.password))
        with self._log_file.open("ab") as output:
            # A process group of its own: Ctrl-C in a terminal must not end the broker before we said goodbye.
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=children.environment(),
                start_new_session=True,
            )
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line.encode() + b"\n")
            await self._ready(self._process)
            self._serving = True
        except BaseException:
            await self._end()
            raise

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._limits.broker_start_s):
                while process.returncode is None:
                    with contextlib.suppress(OSError):
                        await _knock(self.host, self.port)
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
                code = await self._process.wait()
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


class _Embedded:
    def __init__(self, settings: Settings) -> None:
        self._folder, self._limits = settings.data / "broker", settings.limits

    def prepare(self, listen: Listen) -> tuple[list[str], str]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / "rumqttd.toml"
        write_secret(path, broker_config.rumqttd(listen, self._limits))
        return children.command("controller.embedded"), str(path)


class _Mosquitto:
    def __init__(self, settings: Settings) -> None:
        program = find_mosquitto()
        if program is None:
            raise UserError("mosquitto is not installed", "apt install mosquitto, or use --broker embedded")
        self._program = program
        self._folder, self._limits = settings.data / "broker", settings.limits

    def prepare(self, listen: Listen) -> tuple[list[str], str]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        passwd = broker_config.mosquitto_passwd(listen.username, listen.password, secrets.token_bytes(12))
        write_secret(self._folder / "mosquitto.passwd", passwd)
        path = self._folder / "mosquitto.conf"
        write_secret(path, broker_config.mosquitto(listen, self._limits, self._folder, getpass.getuser()))
        return children.command("controller.guard"), guard.order([self._program, "-c", str(path)])


def _listen(settings: Settings, password: str) -> Listen:
    return Listen(_loopback(settings.broker_host), settings.broker_port, USERNAME, password)


def _loopback(host: str) -> str:
    """Our own brokers know one password and no ACL: they are for this machine only."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        fits = ipaddress.ip_address(address).is_loopback
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"a broker started by Lepta listens on this machine only, not on {host}",
            "run your own broker for other machines and name it with --broker mqtt://HOST:PORT",
        )
    return address


def _free_port(host: str) -> int:
    """A port that is free now, from below the range that the system gives to outgoing connections."""
    for port in random.sample(_PORTS, _TRIES * 10):
        with contextlib.suppress(OSError):
            socket.create_server((host, port)).close()
            return port
    raise Conflict(f"no free port was found on {host}", "name one for the broker")


def _check_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise Conflict(
            f"the broker cannot listen on {host}:{port}: {error.strerror}",
            "stop what uses that port, or choose another",
        ) from error


async def _knock(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
