"""One MQTT connection on the event loop: from CONNECT to its loss, then thrown away.

paho-mqtt speaks the protocol; the loop watches its socket, so there is no extra thread. A new connection starts with
nothing of the last one: paho would send unacknowledged messages again, old ones after new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.contract import wire
from agent.contract.lean import LeanSocket
from controller.errors import LeptaError
from controller.settings import Limits

log = logging.getLogger("lepta.bus")

_REFUSED = 128
_GOODBYE_S = 1.0
_RETAIN_NOT_AT_ALL = SubscribeOptions.RETAIN_DO_NOT_SEND


class ConnectionFailed(LeptaError):
    """There is no connection, or it was lost; says why."""


@dataclass(frozen=True)
class Login:
    host: str
    port: int
    username: str
    password: str
    client_id: str
    will_topic: str
    will: bytes
    path: str = ""
    """Of a Unix socket; where that cannot be opened, TCP will do."""
    tls: bool = False
    """Trust whom this machine trusts."""
    acknowledge: bool = True
    """What was read, at once: the broker may wait for that."""


@dataclass
class _Sent:
    size: int
    on_acked: Callable[[], None] | None


class Connection:
    """Owned by the event loop. `on_message(topic, payload)` is called between packets; what it raises is logged."""

    def __init__(self, login: Login, limits: Limits, at_once: int, on_message: Callable[[str, bytes], None]) -> None:
        """`at_once`: QoS 1 messages sent without waiting for acknowledgements; more wait here."""
        self._login = login
        self._limits = limits
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._client = self._make_client(at_once)
        self.receive_maximum = at_once
        """How many the broker takes at once, known after `open`."""
        self._socket: LeanSocket | None = None
        self._writing = False
        self._flushing = False
        self._misc: asyncio.TimerHandle | None = None
        self._pending: dict[int, _Sent] = {}
        self._pending_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._acked: list[Callable[[], None]] = []
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done with the reason once the connection is no more."""

    async def open(self, filters: Sequence[tuple[str, int]]) -> None:
        """Connect and subscribe `(topic filter, QoS)`; returns when the broker granted all; raises ConnectionFailed."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                # Name look-up and TCP handshake block; nothing else runs in that thread.
                await asyncio.to_thread(self._connect)
                self._attach()
                await self._connected
                wanted = [
                    (topic, SubscribeOptions(qos=qos, retainHandling=_RETAIN_NOT_AT_ALL)) for topic, qos in filters
                ]
                self._client.subscribe(wanted)
                await self._subscribed
        except TimeoutError as error:
            raise self._failed("it does not answer") from error
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        on_acked: Callable[[], None] | None = None,
        now: bool = False,
    ) -> bool:
        """Hand a message over, as `Bus.publish` says; False if the connection is gone or too much waits already."""
        full = len(self._pending) >= self._limits.bus_in_flight
        if self.lost.done() or full or self._pending_bytes + len(payload) > self._limits.bus_out_bytes:
            return False
        if qos == 0 and not retain and on_acked is None and self._send_short(topic, payload, now):
            return True
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        self._pending[info.mid] = _Sent(len(payload), on_acked)
        self._pending_bytes += len(payload)
        self._idle.clear()
        return True

    def _send_short(self, topic: str, payload: bytes, now: bool) -> bool:
        """Past paho, unless something waits in it that was to be sent before."""
        if self._socket is None or self._client.want_write() or not self._socket.publish(topic, payload):
            return False
        if now:
            self._flush_lean()
        else:
            self._flush_soon()
        return True

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_short)

    def _flush_short(self) -> None:
        self._flushing = False
        self._flush_lean()

    def _flush_lean(self) -> None:
        """Write all that was published, or is acknowledged, in this turn of the loop."""
        if self._socket is not None:
            self._socket.flush()
            if self._socket.unsent:
                self._watch_writing()

    async def close(self) -> None:
        """Send what waits, as far as it goes at once, and say goodbye."""
        if self._socket is not None and not self.lost.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._idle.wait()
            self._client.disconnect()
            self._flush()
        self._drop("closed")

    # -- paho's side

    def _make_client(self, at_once: int) -> paho.Client:
        login = self._login
        client = _Client(CallbackAPIVersion.VERSION2, client_id=login.client_id, protocol=paho.MQTTv5)
        client.path = login.path
        client.connect_timeout = self._limits.connect_s
        client.max_inflight_messages_set(at_once)
        client.will_set(login.will_topic, login.will, qos=1, retain=True)
        if login.tls:
            client.tls_set_context(ssl.create_default_context())
        if login.username:
            client.username_pw_set(login.username, login.password)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda _client, _data, _flags, reason, _properties: self._drop(str(reason))
        client.on_subscribe = lambda _client, _data, _mid, codes, _properties: self._on_subscribe(codes)
        client.on_message = lambda _client, _data, message: self._on_packet(message.topic, bytes(message.payload))
        client.on_publish = lambda _client, _data, mid, _reason, _properties: self._on_publish(mid)
        client.on_socket_register_write = lambda _client, _data, _socket: self._write_soon()
        client.on_socket_close = lambda _client, _data, _socket: self._detach()
        return client

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = self._limits.broker_payload_bytes
        login = self._login
        self._client.connect(login.host, login.port, self._limits.keepalive_s, clean_start=True, properties=properties)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(self._failed(f"it refuses us: {reason}"))
            return
        self.receive_maximum = getattr(properties, "ReceiveMaximum", None) or self.receive_maximum
        self._connected.set_result(None)

    def _on_subscribe(self, codes: Sequence[Any]) -> None:
        if self._subscribed.done():
            return
        refused = [str(code) for code in codes if code.value >= _REFUSED]
        if refused:
            self._subscribed.set_exception(self._failed(f"it refuses our subscriptions: {refused[0]}"))
        else:
            self._subscribed.set_result(None)

    def _on_packet(self, topic: str, payload: bytes) -> None:
        try:
            self._on_message(topic, payload)
        except Exception:
            log.exception("a message could not be handled")

    def _on_publish(self, mid: int) -> None:
        sent = self._pending.pop(mid, None)
        if sent is None:
            return
        self._pending_bytes -= sent.size
        if not self._pending:
            self._idle.set()
        if sent.on_acked is not None:
            # paho holds its locks here: the callback runs when it is done.
            if not self._acked:
                self._loop.call_soon(self._tell_acked)
            self._acked.append(sent.on_acked)

    def _tell_acked(self) -> None:
        acked, self._acked = self._acked, []
        for callback in acked:
            callback()

    # -- the loop's side

    def _attach(self) -> None:
        sock: Any = self._client.socket()
        if not isinstance(sock, LeanSocket):
            raise self._failed("it closed the connection")
        self._socket = sock
        wire.no_delay(sock.real)
        wire.quick_ack(sock.real)
        self._loop.add_reader(sock.fileno(), self._readable)
        self._tick()
        self._flush()

    def _detach(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._stop_writing(self._socket)
            self._socket = None

    def _readable(self) -> None:
        self._guarded(self._read)
        if self._socket is not None and self._login.acknowledge:
            wire.quick_ack(self._socket.real)

    def _read(self) -> None:
        sock = self._socket
        assert sock is not None
        sock.fill()
        while self._socket is sock:
            for topic, payload in sock.messages(qos_1=not self._client.want_write()):
                self._on_packet(topic, payload)
            if not sock.waiting:
                break
            self._client.loop_read()
        if sock.put:
            self._flush_soon()

    def _write_soon(self) -> None:
        # Most messages fit into the socket's buffer: try first, and watch the socket only for the rest.
        if self._socket is not None:
            self._loop.call_soon(self._flush)

    def _watch_writing(self) -> None:
        if self._socket is not None and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._flush)

    def _stop_writing(self, sock: LeanSocket) -> None:
        if self._writing:
            self._loop.remove_writer(sock.fileno())
        self._writing = False

    def _flush(self) -> None:
        self._guarded(self._client.loop_write)
        if self._socket is None:
            return
        self._socket.flush()
        if self._socket.unsent or self._client.want_write():
            self._watch_writing()
        else:
            self._stop_writing(self._socket)

    def _tick(self) -> None:
        """paho's housekeeping: pings, and the loss of a silent broker."""
        self._guarded(self._client.loop_misc)
        if not self.lost.done():
            self._misc = self._loop.call_later(1.0, self._tick)

    def _guarded(self, act: Callable[[], object]) -> None:
        if self._socket is None:
            return
        try:
            act()
        except Exception as error:
            # A broker that speaks nonsense costs this connection and nothing more.
            log.exception("the connection to the broker broke")
            self._drop(f"it sent what cannot be read: {error}")

    def _drop(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._idle.set()
        if self._misc is not None:
            self._misc.cancel()
        sock = self._socket
        self._detach()
        if sock is not None:
            sock.close()
        for waiting in (self._connected, self._subscribed):
            if not waiting.done():
                waiting.set_exception(self._failed(f"it closed the connection ({reason})"))
                # Nobody may be waiting for this one.
                waiting.exception()

    def _failed(self, why: str) -> ConnectionFailed:
        login = self._login
        hint = "check that the broker runs and that it knows our user name and password"
        return ConnectionFailed(f"no connection to the broker at {login.host}:{login.port}: {why}", hint, who="network")


class _Client(paho.Client):
    """paho over a socket that knows a short way for requests and answers."""

    path = ""

    def _create_socket(self) -> Any:
        return LeanSocket(wire.near(self.path, self.connect_timeout) or super()._create_socket())
