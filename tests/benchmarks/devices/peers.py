"""One MQTT connection that obeys: it connects once, never again by itself, and says what became of everything."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.contract import wire

WAIT_S = 10.0
_AT_ONCE = 5000


class Refused(Exception):
    """The broker does not take the connection."""


class Login(NamedTuple):
    """Where and as whom to come in."""

    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    will: tuple[str, bytes] | None = None


class Peer:
    """A context manager; entering raises Refused."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.got: list[tuple[str, bytes]] = []
        self.lost = threading.Event()
        self._turn = threading.Event()
        self._accepted = False
        self._news = threading.Condition()
        self._subscribed: set[int] = set()
        self._answered: set[int] = set()
        self._client = self._make()

    def __enter__(self) -> Peer:
        try:
            self._client.connect("127.0.0.1", self.login.port, keepalive=60, properties=_limits())
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from error
        self._client.loop_start()
        if not self._turn.wait(WAIT_S) or not self._accepted:
            self._client.loop_stop()
            raise Refused("no session")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def vanish(self) -> None:
        """Go without a word: the broker speaks the will."""
        sock: Any = self._client.socket()
        if sock is not None:
            # Past TLS, which would say goodbye; paho's thread then ends by itself.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._client.loop_stop()

    def subscribe(self, *filters: str) -> None:
        """Returns when the broker has answered, whatever it says."""
        done, mid = self._client.subscribe([(filter_, SubscribeOptions(qos=1)) for filter_ in filters])
        if done == paho.MQTT_ERR_SUCCESS:
            self._until(lambda: mid in self._subscribed)

    def unsubscribe(self, *filters: str) -> None:
        self._client.unsubscribe(list(filters))

    def publish(self, messages: Iterable[tuple[str, bytes]], *, retain: bool = False) -> None:
        """Returns when the broker has answered for each, whatever it says."""
        sent = {self._client.publish(topic, payload, 1, retain).mid for topic, payload in messages}
        self._until(lambda: sent <= self._answered)
        self._answered -= sent

    def until(self, payload: bytes) -> None:
        """Wait for a message with this payload: what was sent before it has arrived then."""
        if not self._until(lambda: any(body == payload for _, body in self.got)):
            raise TimeoutError(f"{self.login.client_id} was to hear {payload!r}, and did not")

    def take(self) -> list[tuple[str, bytes]]:
        """What came since the last time."""
        with self._news:
            got, self.got = self.got, []
        return got

    def _until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + WAIT_S
        with self._news:
            while not condition():
                if self.lost.is_set() or time.monotonic() > deadline:
                    return False
                self._news.wait(0.05)
        return True

    def _make(self) -> paho.Client:
        login = self.login
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=login.client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.max_inflight_messages_set(_AT_ONCE)
        if login.tls is not None:
            client.tls_set_context(login.tls)
        if login.username:
            client.username_pw_set(login.username, login.password)
        if login.will is not None:
            client.will_set(*login.will, qos=1)
        client.on_connect = lambda _c, _u, _f, code, _p: self._connected(not code.is_failure)
        client.on_disconnect = lambda *_: self._disconnected()
        client.on_subscribe = lambda _c, _u, mid, _codes, _p: self._note(lambda: self._subscribed.add(mid))
        client.on_publish = lambda _c, _u, mid, _code, _p: self._note(lambda: self._answered.add(mid))
        client.on_socket_open = lambda _c, _u, sock: wire.no_delay(sock) if isinstance(sock, socket.socket) else None
        client.on_message = lambda _c, _u, message: self._note(
            lambda: self.got.append((message.topic, bytes(message.payload)))
        )
        return client

    def _connected(self, accepted: bool) -> None:
        self._accepted = accepted
        self._turn.set()

    def _disconnected(self) -> None:
        self.lost.set()
        self._turn.set()

    def _note(self, change: Callable[[], Any]) -> None:
        with self._news:
            change()
            self._news.notify_all()


def _limits() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = 65_535
    return properties
