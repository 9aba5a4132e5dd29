"""`lepta up --lan` on loopback, and a device made by hand: its key, its certificate, its connection by paho."""

from __future__ import annotations

import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from agent.contract import topics
from agent.contract.signing import PrivateKey, write_secret
from tests.joining import application, request_of
from tests.system.world import World


class LanWorld(World):
    """A controller that knows devices by their certificates."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.agents_port, self.clients_port = free_ports(2)
        ports = ["--agents-port", str(self.agents_port), "--clients-port", str(self.clients_port)]
        super().__init__(folder, ["--lan", "--host", "127.0.0.1", *ports, *options])

    @property
    def ca(self) -> Path:
        return self.data / "ca" / "ca.pem"

    def agent_arguments(self, name: str) -> list[str]:
        return [*super().agent_arguments(name), "--ca-fingerprint", self.client.claim().ca_fingerprint]

    def operator(self) -> Login:
        """Sees everything, on the listener of this machine."""
        access = self.client.broker()
        return Login(access.port, None, user=(access.username or "", access.password or ""))

    def retained(self, filter_: str) -> set[str]:
        """Topics, without the common root, that the broker holds something for."""
        with self.operator() as operator:
            operator.subscribe(f"{topics.ROOT}/{filter_}")
            time.sleep(0.2)
        return {topic.removeprefix(f"{topics.ROOT}/") for topic, payload in operator.seen if payload}

    def join(self, name: str, **claim: Any) -> Device:
        """A device with a certificate; not connected."""
        key = PrivateKey.generate()
        answer = self.http.post("/api/v1/enroll", json=application(self.client.claim(**claim).token, key, name))
        assert answer.status_code == 201, answer.text
        return Device(self, key, answer.json())

    def device_of(self, key: PrivateKey, told: dict[str, Any]) -> Device:
        """One that was told this."""
        return Device(self, key, told)


class Device:
    """Knows what its controller told it, and connects with that."""

    def __init__(self, world: LanWorld, key: PrivateKey, told: dict[str, Any]) -> None:
        self.name = str(told["agent"])
        self.told = told
        self.key = key
        self._world = world
        serial = secrets.token_hex(4)
        self._files = world.folder / f"{self.name}-{serial}.pem", world.folder / f"{self.name}-{serial}.key"
        write_secret(self._files[0], told["certificate"])
        write_secret(self._files[1], key.pem())

    def renew(self, key: PrivateKey | None = None) -> Any:
        """The answer to its request for a new certificate."""
        mine = {"Authorization": f"Bearer {self.told['device_token']}"}
        body = {"csr": request_of(key or self.key)}
        return self._world.http.post("/api/v1/certificate", json=body, headers=mine)

    def connect(self, will: bytes = b"gone") -> Login:
        context = ssl.create_default_context(cafile=self._world.ca)
        context.load_cert_chain(*self._files)
        return Login(self._world.agents_port, context, will=(topics.agent(self.name, "status"), will))


class Login:
    """A connection to the broker; over TLS where `context` is given. Use as a context manager."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext | None,
        user: tuple[str, str] | None = None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.let_in, self.ended, self.subscribed = threading.Event(), threading.Event(), threading.Event()
        self.refused = ""
        self._port = port
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if context is not None:
            client.tls_set_context(context)
        if user is not None:
            client.username_pw_set(*user)
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = lambda *_: self.ended.set()
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = lambda _c, _u, message: self.seen.append((message.topic, bytes(message.payload)))

    def __enter__(self) -> Login:
        try:
            self._client.connect("127.0.0.1", self._port, keepalive=60)
        except OSError as error:
            self.refused = str(error)
            self.ended.set()
            return self
        self._client.loop_start()
        while not (self.let_in.wait(0.02) or self.ended.is_set()):
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def is_up(self) -> bool:
        return self.let_in.is_set() and not self.ended.is_set()

    def subscribe(self, *filters: str) -> None:
        for topic in filters:
            self.subscribed.clear()
            self._client.subscribe(topic, qos=1)
            assert self.subscribed.wait(10)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        assert message.rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        message.wait_for_publish(10)

    def _connected(self, _c: paho.Client, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self.refused = str(code)
            self.ended.set()
        else:
            self.let_in.set()


def free_ports(count: int) -> Sequence[int]:
    """Ports that nobody uses now, from below the range that the system gives to outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(12_000, 19_999)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found
