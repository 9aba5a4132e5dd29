"""What the controller needs of an MQTT broker, whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from controller.errors import Internal

Kind = Literal["embedded", "mosquitto", "external"]


class BrokerError(Internal):
    """A broker that does not start or cannot be reached."""


@dataclass(frozen=True)
class ClientRight:
    """A user's program: it may ask every model, and read its own answers and the predictions of these models; it may
    publish on topics of its own that were granted."""

    name: str
    password: str
    """As `config.client_password` makes it."""
    predictions: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoundTopic:
    """A topic that devices may read beside the contract's. `devices` empty: each of them; `{device}` is the reader."""

    topic: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Admission:
    """Who may come in from other machines: every certificate of our CA that is not revoked, and these clients."""

    clients: tuple[ClientRight, ...]
    crl: str
    """PEM."""
    bound: tuple[BoundTopic, ...] = ()


def sends_at_once(kind: Kind) -> bool:
    """Does such a broker send small packets at once, as ours are told to? Others may keep one back until what was sent
    before is acknowledged (Nagle's algorithm): then each read has to be, which costs a system call and a packet."""
    return kind == "mosquitto"


class Broker(Protocol):
    """`port` and the rest are final once `start` has returned."""

    kind: Kind
    host: str
    port: int
    path: str
    """A Unix socket of it, for who may open it: a message takes less of both sides there than by TCP. Empty: none."""
    username: str
    password: str
    tls: bool
    """The controller itself connects with TLS and trusts whom this machine trusts."""
    agents_port: int
    """Where devices of other machines come in; 0: where everybody does."""
    clients_port: int

    @property
    def alive(self) -> bool:
        """Does it run, as far as we know?"""

    async def start(self) -> None:
        """Return when it accepts connections; raises LeptaError with what to do otherwise."""

    async def stop(self) -> None:
        """End it, if it is ours. Safe to call twice."""

    def admit(self, admission: Admission) -> None:
        """From now on let these in, and read the server's certificate anew. Before the start too. Live connections
        of devices stay: see `expel`. Nothing happens where everybody shares one password."""

    async def expel(self, name: str) -> None:
        """Put out a live connection of this device or client. Nothing happens where everybody shares one password."""
