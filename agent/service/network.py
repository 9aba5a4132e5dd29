"""The doctor's way to the controller and to the broker, one step after the other."""

from __future__ import annotations

import socket
import ssl
import urllib.parse
from collections.abc import Iterator

from agent.clock import Clock
from agent.enroll import CERTIFICATE, KEY, Identity
from agent.loop import Loop
from agent.service.check import Check, failed, ok
from agent.settings import AgentSettings
from agent.start import link_to
from agent.trust import Door, explain

_WAIT_S = 5.0
_NAME = "if the controller has a new name or address, it must be in `lepta up --name`, and known to this device's DNS"


def checks(identity: Identity, settings: AgentSettings) -> Iterator[Check]:
    """Of each of the two: its name, its port, its TLS. A step that fails ends that one's."""
    url = urllib.parse.urlsplit(identity.controller)
    if url.hostname:
        port = url.port or (443 if url.scheme == "https" else 80)
        yield from _server("controller", url.hostname, port, identity, settings, tls=url.scheme == "https")
    broker = identity.broker
    host = broker.host or url.hostname or ""
    if identity.state == "approved":
        yield from _server("broker", host, broker.port, identity, settings, tls=broker.tls)


def login(identity: Identity, settings: AgentSettings) -> str:
    """Connect as ourselves, and leave; what went wrong, or ""."""
    loop = Loop()
    ear = _Ear()
    try:
        link = link_to(loop, settings, identity)
        link.start(ear)
        until = loop.now() + _WAIT_S
        while loop.now() < until and not ear.up and not ear.problem:
            loop.run_once(0.1)
        link.stop()
    except OSError as error:
        return str(error)
    finally:
        loop.close()
    return "" if ear.up else ear.problem or f"no answer within {_WAIT_S:.0f} s, or it refuses us"


class _Ear:
    """A link.Listener that only hears whether it is connected."""

    up = False
    problem = ""

    def link_up(self) -> None:
        self.up = True

    def link_down(self, reason: str) -> None:
        self.problem = "" if self.up else reason

    def link_received(self, topic: str, payload: bytes) -> None:
        return

    def link_subscribed(self, topic: str, refused: str) -> None:
        return


def _server(
    who: str, host: str, port: int, identity: Identity, settings: AgentSettings, *, tls: bool
) -> Iterator[Check]:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        yield failed(f"{who}'s name", f"{host}: {getattr(error, 'strerror', None) or error}", _NAME)
        return
    yield ok(f"{who}'s name", f"{host} is {', '.join(sorted(map(str, found)))}")
    try:
        socket.create_connection((host, port), _WAIT_S).close()
    except OSError as error:
        cure = f"is `lepta up` running there, and does a firewall let port {port} through?"
        yield failed(f"{who}'s port", f"{host} port {port}: {error.strerror or error}", cure)
        return
    yield ok(f"{who}'s port", f"{host} port {port} takes connections")
    if tls:
        yield _handshake(who, (host, port), identity, settings)


def _handshake(who: str, address: tuple[str, int], identity: Identity, settings: AgentSettings) -> Check:
    folder = settings.folder
    public = who == "broker" and identity.broker.public
    own = (folder / CERTIFICATE, folder / KEY) if who == "broker" and not public else None
    try:
        with Door("" if public else identity.ca, Clock(folder), own).connect(address, _WAIT_S) as secured:
            return ok(f"{who}'s TLS", f"{secured.version()}, a certificate that we trust for {address[0]}")
    except ssl.SSLError as error:
        return failed(f"{who}'s TLS", explain(error), _NAME)
    except OSError as error:
        return failed(
            f"{who}'s TLS", str(error.strerror or error), "lepta-agent doctor again; see the controller's log"
        )
