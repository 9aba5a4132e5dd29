"""A user who asks over MQTT and waits for each answer: one thread, one connection, nothing between socket and clock."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from agent.contract import topics
from agent.contract.wire import no_delay, quick_ack
from controller.replies import BrokerAccess

_PATIENCE_S = 10.0


class CallerError(RuntimeError):
    """No connection, or no answer."""


class Caller:
    """Use as a context manager."""

    def __init__(self, broker: BrokerAccess, name: str) -> None:
        self._broker = broker
        self._answers = topics.client_answer(name)
        self._got: list[bytes] = []
        self._subscribed = False
        self._mqtt = Client(CallbackAPIVersion.VERSION2, f"{name}-caller", protocol=MQTTv5)
        self._mqtt.username_pw_set(broker.username, broker.password)
        self._mqtt.on_connect = self._connected
        self._mqtt.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        self._mqtt.on_message = lambda _client, _data, message: self._got.append(bytes(message.payload))

    def __enter__(self) -> Caller:
        self._mqtt.connect(self._broker.host, self._broker.port)
        sock = self._mqtt.socket()
        if not isinstance(sock, socket.socket):
            raise CallerError(f"no connection to {self._broker.host}:{self._broker.port}")
        self._sock = sock
        no_delay(self._sock)
        self._until(lambda: self._subscribed, "a subscription")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mqtt.disconnect()

    def ask(self, topic: str, body: bytes) -> float:
        """Publish and wait for the answer; returns seconds. Raises CallerError for an answer that is an error."""
        self._got.clear()
        began = time.monotonic()
        self._mqtt.publish(topic, body, qos=1)
        self._until(lambda: bool(self._got), "an answer")
        taken = time.monotonic() - began
        if b'"outputs"' not in self._got[0]:
            raise CallerError(f"the answer is none: {self._got[0][:500]!r}")
        return taken

    def _connected(self, *_: object) -> None:
        self._mqtt.subscribe(self._answers, qos=1)

    def _until(self, done: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > until:
                raise CallerError(f"{what} did not come in {_PATIENCE_S:.0f} s")
            writing = [self._sock] if self._mqtt.want_write() else []
            readable, writable, _ = select.select([self._sock], writing, [], 1.0)
            if readable:
                self._mqtt.loop_read()
                quick_ack(self._sock)
            if writable:
                self._mqtt.loop_write()
            self._mqtt.loop_misc()
