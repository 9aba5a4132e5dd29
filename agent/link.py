"""The agent's MQTT connection: paho-mqtt driven by the supervisor's loop. Nothing queues inside paho while offline."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.contract import wire
from agent.contract.lean import LeanSocket
from agent.loop import Loop, Timer
from agent.outbox import Letter, Outbox
from agent.settings import Limits

_log = logging.getLogger("lepta.agent.link")
_MISC_EVERY_S = 1.0


class Broker(msgspec.Struct, frozen=True):
    """Where and as whom to connect."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    path: str = ""  # Of a Unix socket; where that cannot be opened, TCP will do.
    tls: bool = False
    """Speak TLS, trust the controller's CA only, and show the agent's certificate."""
    public: bool = False
    """Somebody else's broker: with TLS, the system's trust store says whether it is the right one."""
    at_once: bool = False  # It sends small packets at once: what was read is acknowledged with the answer to it.


class Listener(Protocol):
    """What the link tells its supervisor, always on the loop."""

    def link_up(self) -> None: ...

    def link_down(self, reason: str) -> None: ...

    def link_received(self, topic: str, payload: bytes) -> None: ...

    def link_subscribed(self, topic: str, refused: str) -> None:
        """The broker has answered: it sends what comes on this topic, or `refused` says why not."""


class Connection(Protocol):
    """What an agent needs of its way to the controller. Methods as in `Link`."""

    @property
    def connected(self) -> bool: ...

    def will(self, topic: str, payload: bytes) -> None: ...

    def start(self, listener: Listener) -> None: ...

    def subscribe(self, topic: str, qos: int = 1) -> None: ...

    def unsubscribe(self, topic: str) -> None: ...

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False, kept: bool = False) -> None: ...

    def stop(self) -> None: ...


class Link:
    """Connects, stays connected, and hands over messages.

    Reconnects with exponential backoff and jitter from `random_`. Subscriptions are made again on every connection.
    `connect` gets address and timeout, resolves the name, and returns the socket, after TLS's handshake if the broker
    wants one; it runs on a thread.
    """

    def __init__(
        self,
        loop: Loop,
        broker: Broker,
        client_id: str,
        limits: Limits,
        random_: Callable[[], float] = random.random,
        connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection,
    ) -> None:
        self._loop = loop
        self._broker = broker
        self._limits = limits
        self._random = random_
        self._dial = connect
        self._listener: Listener | None = None
        self._topics: dict[str, int] = {}
        self._asked: dict[int, list[str]] = {}
        """Topics of each subscription that the broker has not answered yet, by packet."""
        self._granted: list[tuple[str, str]] = []
        self._outbox = Outbox(limits.outbox, limits.outbox_mb << 20)
        self._inbox: list[tuple[str, bytes]] = []
        self._turns: list[tuple[bool, str]] = []
        self._tries = 0
        self._stopping = False
        self._retry: Timer | None = None
        self._connecting = False
        self._misc: Timer | None = None
        self._watched: LeanSocket | None = None
        self._writing = False
        self._flushing = False
        self._handing = False
        self.connected = False
        self._client = _client(self, client_id, broker, limits)

    def will(self, topic: str, payload: bytes) -> None:
        """What the broker says for us when we vanish. Before `start`."""
        self._client.will_set(topic, payload, qos=1, retain=True)

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._connect()

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self._topics[topic] = qos
        if self.connected:
            self._ask_for({topic: qos})
            self._after_use()

    def unsubscribe(self, topic: str) -> None:
        if self._topics.pop(topic, None) is not None and self.connected:
            self._client.unsubscribe(topic)
            self._after_use()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False, kept: bool = False) -> None:
        """Send now, or as soon as the broker takes it. Offline, only what is `kept` waits."""
        letter = Letter(topic, payload, qos, retain, kept)
        if not self.connected:
            if kept:
                self._outbox.put(letter)
            return
        if len(self._outbox) or self._busy():
            self._outbox.put(letter)
            self._flush()
        else:
            self._send(letter)
        if not self._flushing:  # Else all is looked at when this turn ends.
            self._after_use()

    def stop(self) -> None:
        """Say goodbye (no will) and close. What was published before is sent first, as far as it takes no time."""
        self._stopping = True
        for timer in (self._retry, self._misc):
            if timer is not None:
                timer.cancel()
        if self._client.socket() is not None:
            self._flush()
            self._client.disconnect()
            for _ in range(100):
                if not self._client.want_write() or self._client.loop_write() != mqtt.MQTT_ERR_SUCCESS:
                    break
        self._unwatch()
        self._client.drop()
        self.connected = False

    # -- connecting

    def _connect(self) -> None:
        if self._stopping or self._connecting:
            return
        self._connecting = True
        address = (self._broker.host, self._broker.port)
        self._loop.in_thread(lambda: self._dial(address, self._limits.connect), self._reached)

    def _reached(self, sock: socket.socket | Exception) -> None:
        self._connecting = False
        if isinstance(sock, Exception):
            self._again(f"{self._broker.host}:{self._broker.port}: {sock}")
            return
        if self._stopping:
            sock.close()
            return
        wire.no_delay(sock)
        self._client.next_socket = sock
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._again(str(error))
            return
        self._after_use()
        self._misc = self._loop.call_later(_MISC_EVERY_S, self._tick)

    def _again(self, reason: str) -> None:
        if self._stopping:
            return
        if self._retry is not None:
            self._retry.cancel()  # One chain of tries: paho tells a loss once for reading and once for writing.
        most = min(self._limits.reconnect_first * 2.0**self._tries, self._limits.reconnect_most)
        self._tries = min(self._tries + 1, 30)
        delay = most * (0.5 + 0.5 * self._random())
        log = _log.warning if self._tries == 1 else _log.debug
        log("no broker (%s); next try in %.1f s", reason, delay)
        self._retry = self._loop.call_later(delay, self._connect)

    def _tick(self) -> None:
        """Keepalive, by paho."""
        self._client.loop_misc()
        self._after_use()
        if self._client.socket() is not None:
            self._misc = self._loop.call_later(_MISC_EVERY_S, self._tick)

    # -- traffic

    def _readable(self) -> None:
        sock = self._client.lean
        if sock is None:
            return
        sock.fill()
        while self._client.lean is sock:
            self._inbox += sock.messages(qos_1=not self._client.want_write())
            if not sock.waiting:
                if not self._broker.at_once:
                    wire.quick_ack(sock.real)
                break
            self._client.loop_read()
        if sock.put:
            self._flush_soon()
        self._after_use()

    def _busy(self) -> bool:
        """Does the socket take no more for now?"""
        sock = self._client.lean
        return self._client.want_write() or (sock is not None and sock.unsent)

    def _writable(self) -> None:
        self._client.loop_write()
        if self._client.lean is not None:
            self._client.lean.flush()
        self._flush()
        self._after_use()

    def _flush(self) -> None:
        while self.connected and not self._busy():
            letter = self._outbox.take()
            if letter is None or not self._send(letter):
                return

    def _send(self, letter: Letter) -> bool:
        sock = self._client.lean
        if sock is not None and letter.qos == 0 and not letter.retain and sock.publish(letter.topic, letter.payload):
            self._flush_soon()
            return True
        info = self._client.publish(letter.topic, letter.payload, letter.qos, letter.retain)
        if info.rc in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
            return True  # Without a connection paho keeps QoS 1 within its bound; the loss shows in a moment.
        if letter.kept:
            self._outbox.put(letter)
        return False

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.defer(self._flush_lean)

    def _flush_lean(self) -> None:
        """All that was published, or is acknowledged, in one turn of the loop."""
        self._flushing = False
        sock = self._client.lean
        if sock is not None:
            sock.flush()
            self._after_use()

    def _after_use(self) -> None:
        """Whatever paho did: watch the right socket for the right things, then hand over what came."""
        sock = self._client.lean
        if sock is not self._watched:
            self._unwatch()
        writing = sock is not None and self._busy()
        if sock is not None and (sock is not self._watched or writing != self._writing):
            self._loop.watch(sock.real, self._readable, self._writable if writing else None)
            self._watched, self._writing = sock, writing
        if not self._handing:  # A listener that publishes comes back here; the outer turn goes on.
            self._handing = True
            try:
                while self._turns or self._granted or self._inbox:
                    self._hand_over()
            finally:
                self._handing = False

    def _hand_over(self) -> None:
        turns, self._turns = self._turns, []
        granted, self._granted = self._granted, []
        inbox, self._inbox = self._inbox, []
        assert self._listener is not None
        for up, reason in turns:
            if up:
                self._came_up()
            else:
                self._went_down(reason)
        for topic, refused in granted:
            self._listener.link_subscribed(topic, refused)
        for topic, payload in inbox:
            self._listener.link_received(topic, payload)

    def _came_up(self) -> None:
        assert self._listener is not None
        self.connected = True
        self._tries = 0
        if self._topics:
            self._ask_for(self._topics)
        self._listener.link_up()
        self._flush()

    def _ask_for(self, wanted: dict[str, int]) -> None:
        _, packet = self._client.subscribe(list(wanted.items()))
        if packet is not None:
            self._asked[packet] = list(wanted)

    def _went_down(self, reason: str) -> None:
        assert self._listener is not None
        was, self.connected = self.connected, False
        self._asked.clear()
        self._outbox.keep_only_kept()
        if self._misc is not None:
            self._misc.cancel()
        self._unwatch()
        if was:
            self._listener.link_down(reason)
        self._again(reason)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.forget(self._watched.real)
            self._watched = None
            self._writing = False

    # -- paho's callbacks: they only append

    def noted(self, up: bool, reason: str) -> None:
        self._turns.append((up, reason))

    def received(self, topic: str, payload: bytes) -> None:
        self._inbox.append((topic, payload))

    def answered(self, packet: int, codes: list[ReasonCode]) -> None:
        """To a subscription, one code for each topic."""
        for topic, code in zip(self._asked.pop(packet, ()), codes, strict=False):
            refused = str(code) if code.is_failure else ""
            if refused:
                _log.warning("the broker does not let this device read %s: %s; see its access rules", topic, refused)
            self._granted.append((topic, refused))


class _Client(mqtt.Client):
    """paho with a socket that was connected elsewhere, so that a slow network never stops the loop."""

    next_socket: socket.socket | None = None

    @property
    def lean(self) -> LeanSocket | None:
        sock: Any = self.socket()
        return sock if isinstance(sock, LeanSocket) else None

    def _create_socket(self) -> Any:
        sock, self.next_socket = self.next_socket, None
        if sock is None:
            raise OSError("not connected")
        return LeanSocket(sock)

    def drop(self) -> None:
        self._sock_close()


def _client(link: Link, client_id: str, broker: Broker, limits: Limits) -> _Client:
    client = _Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_queued_messages_set(limits.outbox)
    if broker.username:
        client.username_pw_set(broker.username, broker.password)

    def connected(_c: Any, _u: Any, _flags: Any, code: ReasonCode, _p: Any) -> None:
        if not code.is_failure:
            link.noted(True, "")

    def disconnected(_c: Any, _u: Any, _flags: Any, code: ReasonCode, _p: Any) -> None:
        link.noted(False, str(code))

    def message(_c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        link.received(message.topic, bytes(message.payload))

    def subscribed(_c: Any, _u: Any, packet: int, codes: list[ReasonCode], _p: Any) -> None:
        link.answered(packet, codes)

    client.on_connect, client.on_disconnect, client.on_message = connected, disconnected, message
    client.on_subscribe = subscribed
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = limits.at_once
    client.connect_async(broker.host, broker.port, limits.keepalive, clean_start=True, properties=properties)
    return client
