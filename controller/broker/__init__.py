"""The MQTT broker behind one face: embedded (iotcore), a mosquitto of our own, or one that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import os
import secrets
import shutil
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.contract import children, wire
from agent.contract.signing import write_secret
from controller.broker import config, guard
from controller.broker.config import Lan, Listen
from controller.broker.port import Admission, Broker, BrokerError, ClientRight, Kind
from controller.broker.spawned import Spawned
from controller.errors import Internal, UserError
from controller.identity.authority import ServerFiles
from controller.settings import Limits, Settings

USERNAME = "lepta"
_KINDS = "auto, embedded, mosquitto, or mqtt[s]://[USER:PASSWORD@]HOST[:PORT]"
_EVERYWHERE = ("", "::")
# mosquitto reads no longer salt.
_SALT_BYTES = 12
_SOCKET = "mosquitto.sock"
_INSTALL = "apt install mosquitto"
_PLAIN, _TLS = ("mqtt", 1883), ("mqtts", 8883)


def find_mosquitto() -> str | None:
    """The program, also where it lies outside of an ordinary user's PATH."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("mosquitto", path=path)


def create(
    settings: Settings,
    password: str,
    server: ServerFiles | None = None,
    ca: Path | None = None,
    *,
    find: Callable[[], str | None] = find_mosquitto,
) -> Broker:
    """The broker that the settings ask for. Raises UserError if that cannot be.

    `password` is for one of our own; `server` and `ca` (PEM) for one that serves other machines; `find` says where
    mosquitto is.
    """
    kind = settings.broker
    if kind == "auto":
        kind = "mosquitto" if settings.lan or find() else "embedded"
    if kind == "embedded":
        if settings.lan:
            raise _this_machine_only("the embedded broker serves this machine only", find)
        return Spawned("embedded", _Embedded(settings), _listen(settings, password, find), None, settings)
    if kind == "mosquitto":
        program = find()
        if program is None:
            raise _not_installed(settings)
        listen, lan = _listen(settings, password, find), _lan(settings, server, ca)
        near = str((settings.data / "broker" / _SOCKET).resolve())
        if wire.path_fits(near) and not any(map(str.isspace, near)):  # mosquitto would end the path there.
            listen = replace(listen, path=near)
        return Spawned("mosquitto", _Mosquitto(settings, program), listen, lan, settings)
    return external(kind, settings.limits)


def external(address: str, limits: Limits) -> External:
    """A broker by its address; raises UserError if that is none."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UserError(f"the broker's address is not usable: {error}", f"use {_KINDS}") from error
    usual = dict((_PLAIN, _TLS)).get(parts.scheme)
    if usual is None or not parts.hostname:
        raise UserError("that is no broker", f"use {_KINDS}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return External(parts.hostname, port or usual, user, password, limits, tls=parts.scheme == _TLS[0])


class External:
    """Somebody else's broker: checked at the start, never stopped."""

    kind: Kind = "external"
    path = ""
    agents_port = clients_port = 0

    def __init__(
        self, host: str, port: int, username: str, password: str, limits: Limits, *, tls: bool = False
    ) -> None:
        self.host, self.port, self.username, self.password, self.tls = host, port, username, password, tls
        self._limits = limits
        self.alive = False

    async def start(self) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await _knock(self.host, self.port, tls=self.tls)
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

    def admit(self, _admission: Admission) -> None:
        """Who may log in there is its owner's to say."""

    async def expel(self, _name: str) -> None:
        """Devices share one login: none can be told from the others."""


class _Embedded:
    def __init__(self, settings: Settings) -> None:
        self._folder, self._limits = settings.data / "broker", settings.limits

    def prepare(self, listen: Listen, _lan: Lan | None) -> tuple[list[str], str]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / "rumqttd.toml"
        write_secret(path, config.rumqttd(listen, self._limits))
        return children.command("controller.broker.embedded"), str(path)

    def admit(self, _admission: Admission) -> None:
        """It knows one password."""


class _Mosquitto:
    def __init__(self, settings: Settings, program: str) -> None:
        self._program = program
        self._folder, self._limits = settings.data / "broker", settings.limits

    def prepare(self, listen: Listen, lan: Lan | None) -> tuple[list[str], str]:
        passwd = config.mosquitto_passwd(listen.username, listen.password, secrets.token_bytes(_SALT_BYTES))
        self._write(config.PASSWORD_FILE, passwd)
        path = self._write("mosquitto.conf", self._configuration(listen, lan))
        return children.command("controller.broker.guard"), guard.order([self._program, "-c", str(path)])

    def admit(self, admission: Admission) -> None:
        nobody = secrets.token_bytes(_SALT_BYTES)
        self._write(config.AGENTS_ACL_FILE, config.agents_acl(admission.bound))
        self._write(config.CLIENTS_ACL_FILE, config.clients_acl(admission.clients))
        self._write(config.CLIENTS_FILE, config.clients_passwords(admission.clients, nobody))
        self._write(config.CRL_FILE, admission.crl)

    def _configuration(self, listen: Listen, lan: Lan | None) -> str:
        return config.mosquitto(listen, lan, self._limits, self._folder, getpass.getuser())

    def _write(self, name: str, content: str) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name
        write_secret(path, content)
        return path


def _listen(settings: Settings, password: str, find: Callable[[], str | None]) -> Listen:
    """Whoever has this password may do everything: it is for this machine only."""
    host = "127.0.0.1" if settings.broker_host == "localhost" else settings.broker_host
    try:
        fits = ipaddress.ip_address(host).is_loopback
    except ValueError:
        fits = False
    if not fits:
        raise _this_machine_only(f"a broker without TLS listens on this machine only, not on {host}", find)
    return Listen(host, settings.broker_port, USERNAME, password)


def _lan(settings: Settings, server: ServerFiles | None, ca: Path | None) -> Lan | None:
    if not settings.lan:
        return None
    if server is None or ca is None:
        raise Internal("there is no certificate for the broker", "this is a bug of Lepta; please report it")
    host = "" if settings.host in _EVERYWHERE else settings.host
    # It runs in no folder of ours.
    ca, certificate, key = (path.resolve() for path in (ca, server.certificate, server.key))
    return Lan(host, settings.agents_port, settings.clients_port, ca, certificate, key)


def _this_machine_only(what: str, find: Callable[[], str | None]) -> UserError:
    return UserError(what, "lepta up --lan" if find() else f"{_INSTALL} && lepta up --lan")


def _not_installed(settings: Settings) -> UserError:
    return UserError(
        "mosquitto is not installed", _INSTALL if settings.lan else f"{_INSTALL}, or use --broker embedded"
    )


async def _knock(host: str, port: int, *, tls: bool) -> None:
    context = ssl.create_default_context() if tls else None
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


__all__ = [
    "Admission",
    "Broker",
    "BrokerError",
    "ClientRight",
    "External",
    "Spawned",
    "create",
    "external",
    "find_mosquitto",
]
