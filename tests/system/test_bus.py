"""The controller's MQTT client against real brokers: it survives what comes in, and what goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.contract import topics
from agent.contract.messages import ControllerStatus, Stamper, decode_as
from agent.contract.topics import Topic
from controller import broker
from controller.broker import Broker, External, Spawned
from controller.bus import Bus
from controller.connection import ConnectionFailed
from controller.settings import Limits, Settings

SECRET = "correct horse"
LIMITS = Limits(reconnect_first_s=0.05, broker_restart_first_s=0.05, connect_s=5.0)


class Ear:
    """Remembers what the bus told."""

    def __init__(self, bus: Bus) -> None:
        self.messages: list[tuple[Topic, bytes]] = []
        self.connected = 0
        self.lost = 0
        bus.listen(lambda topic, payload: self.messages.append((topic, payload)), self._connected, self._lost)

    def _connected(self) -> None:
        self.connected += 1

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.debian)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, broker=request.param, limits=LIMITS)


def _bus(to: Broker, limits: Limits = LIMITS, boot: str = "boot-1") -> Bus:
    stamper = Stamper(boot)
    status = lambda online: stamper.encode(ControllerStatus(online=online))  # noqa: E731
    return Bus(to, limits, client_id="controller-test", status=status, draw=lambda: 0.5)


@contextlib.asynccontextmanager
async def _broker(settings: Settings) -> AsyncIterator[Spawned]:
    made = broker.create(settings, SECRET)
    assert isinstance(made, Spawned)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def _scene(settings: Settings, act: Callable[[Spawned, Bus, Ear], Awaitable[None]]) -> None:
    async def scene() -> None:
        async with _broker(settings) as made:
            bus = _bus(made)
            ear = Ear(bus)
            await bus.start()
            try:
                await act(made, bus, ear)
            finally:
                await bus.stop()
            assert not bus.connected

    asyncio.run(scene())


async def _until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.01)):
        if condition():
            break
        await asyncio.sleep(0.01)
    return bool(condition())


class Peer:
    """Another client of the broker, in a thread of its own."""

    def __init__(self, to: Broker, *filters: str) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._filters = filters
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="peer", protocol=paho.MQTTv5)
        self.client.username_pw_set(to.username, to.password)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda _client, _data, m: self.got.append((m.topic, bytes(m.payload)))
        self.client.connect(to.host, to.port)
        self.client.loop_start()
        assert self._ready.wait(5)

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        if self._filters:
            client.subscribe([(topic, 1) for topic in self._filters])
        else:
            self._ready.set()

    def send(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, 1)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.asynccontextmanager
async def _peer(to: Broker, *filters: str) -> AsyncIterator[Peer]:
    peer = await asyncio.to_thread(Peer, to, *filters)
    try:
        yield peer
    finally:
        await asyncio.to_thread(peer.close)


@pytest.mark.debian
@pytest.mark.parametrize("there", [True, False])
def test_mosquitto_is_spoken_to_through_its_unix_socket_or_by_tcp_where_that_is_gone(
    tmp_path: Path, there: bool
) -> None:
    async def act(made: Spawned, bus: Bus, ear: Ear) -> None:
        assert stat.S_ISSOCK(os.stat(made.path).st_mode)
        if not there:
            os.unlink(made.path)
            await bus.stop()
            await bus.start()
        ours = [c.laddr[1] for c in psutil.Process().net_connections("tcp") if c.raddr == (made.host, made.port)]
        assert bool(ours) is not there
        async with _peer(made, topics.CONTROLLER_STATUS) as peer:
            assert await _until(lambda: peer.got)
            peer.send(topics.agent("pi-1", "load"), b"x")
            assert await _until(lambda: ear.messages)

    _scene(Settings(data=tmp_path, broker="mosquitto", limits=LIMITS), act)


def test_every_message_for_the_controller_arrives_and_no_other(settings: Settings) -> None:
    wanted = [*(topics.agent("pi-1", kind) for kind in topics.AGENT_UP), topics.model_infer("digits")]
    others = [topics.agent("pi-1", "desired"), topics.predictions("digits", "pi-1"), "lepta/v1/agents/pi-1/gossip"]

    async def act(made: Spawned, _: Bus, ear: Ear) -> None:
        async with _peer(made) as peer:
            for topic in others + wanted:
                peer.send(topic, topic.encode())
            assert await _until(lambda: len(ear.messages) >= len(wanted))
        assert sorted(payload.decode() for _, payload in ear.messages) == sorted(wanted)
        assert all(topics.parse(payload.decode()) == topic for topic, payload in ear.messages)

    _scene(settings, act)


def test_garbage_on_every_topic_and_a_listener_that_breaks_do_not_stop_it(settings: Settings) -> None:
    async def act(made: Spawned, bus: Bus, _: Ear) -> None:
        told: list[bytes] = []

        def breaks(_: Topic, payload: bytes) -> None:
            told.append(payload)
            raise RuntimeError("this listener is broken")

        bus.listen(breaks)
        async with _peer(made) as peer:
            for kind in topics.AGENT_UP:
                for payload in (b"", b"{", b"\xff" * 1000, os.urandom(100_000)):
                    peer.send(topics.agent("pi-1", kind), payload)
            peer.send("lepta/v1/agents/NOT A NAME/hello", b"{}")
            peer.send("lepta/v1/models/../infer", b"{}")
            assert await _until(lambda: len(told) == 4 * len(topics.AGENT_UP) and bus.refused)
        assert bus.connected

    _scene(settings, act)


def test_messages_are_acknowledged_once_each(settings: Settings) -> None:
    async def act(made: Spawned, bus: Bus, _: Ear) -> None:
        acked: list[int] = []
        async with _peer(made, topics.agent("pi-1", "work")) as peer:
            for number in range(300):
                payload = number.to_bytes(2, "big") + bytes(2000)
                assert bus.publish(topics.agent("pi-1", "work"), payload, qos=1, on_acked=partial(acked.append, number))
            # The broker may pass a message on before it acknowledges it.
            assert await _until(lambda: len(peer.got) == 300 and len(acked) == 300)
        assert sorted(acked) == list(range(300))

    _scene(settings, act)


def test_an_ack_may_send_the_next_message(settings: Settings) -> None:
    """How chunks are paced."""

    async def act(made: Spawned, bus: Bus, _ear: Ear) -> None:
        left = list(range(40))

        def pump() -> None:
            if left:
                payload = bytes([left.pop(0)]) + bytes(110_000)
                assert bus.publish("lepta/v1/blobs/x/0", payload, qos=1, on_acked=pump)

        async with _peer(made, "lepta/v1/blobs/x/+") as peer:
            for _ in range(4):
                pump()
            assert await _until(lambda: len(peer.got) == 40)
        assert sorted(payload[0] for _, payload in peer.got) == list(range(40))

    _scene(settings, act)


def _last_status(peer: Peer) -> ControllerStatus | None:
    return decode_as(ControllerStatus, "controller/status", peer.got[-1][1]) if peer.got else None


def test_online_and_offline_are_announced_and_stay_readable(settings: Settings) -> None:
    async def scene() -> None:
        async with _broker(settings) as made:
            bus = _bus(made, boot="boot-7")
            await bus.start()
            async with _peer(made, topics.CONTROLLER_STATUS) as peer:
                assert await _until(lambda: peer.got)
                status = _last_status(peer)
                assert status is not None
                assert (status.online, status.boot) == (True, "boot-7")
                await bus.stop()
                assert await _until(lambda: len(peer.got) == 2)
                status = _last_status(peer)
                assert status is not None
                assert not status.online

    asyncio.run(scene())


def test_the_will_tells_of_a_controller_that_vanished(settings: Settings) -> None:
    async def act(made: Spawned, bus: Bus, ear: Ear) -> None:
        async with _peer(made, topics.CONTROLLER_STATUS) as peer:
            assert await _until(lambda: peer.got)
            # A second client of the same name: the broker cuts the first one off, as a dead network would.
            other = paho.Client(CallbackAPIVersion.VERSION2, client_id="controller-test", protocol=paho.MQTTv5)
            other.username_pw_set(made.username, made.password)
            await asyncio.to_thread(other.connect, made.host, made.port)
            other.loop_start()
            assert await _until(lambda: ear.lost)
            assert await _until(lambda: len(peer.got) > 1)
            await asyncio.to_thread(other.disconnect)
            await asyncio.to_thread(other.loop_stop)
            assert any(not decode_as(ControllerStatus, "controller/status", p).online for _, p in peer.got)

    _scene(settings, act)


def test_it_comes_back_when_the_broker_does_and_tells_its_listeners(settings: Settings) -> None:
    async def act(made: Spawned, bus: Bus, ear: Ear) -> None:
        for times in (1, 2):
            psutil.Process().children()[0].kill()
            assert await _until(lambda: ear.lost == times)  # noqa: B023
            assert not bus.publish("lepta/v1/blobs/x/0", b"x", qos=1)
            assert await _until(lambda: bus.connected)
            assert ear.connected == times + 1
        async with _peer(made, topics.CONTROLLER_STATUS) as peer:
            assert await _until(lambda: (s := _last_status(peer)) is not None and s.online)
            peer.send(topics.agent("pi-1", "hello"), b"{}")
            assert await _until(lambda: ear.messages)

    _scene(settings, act)


# -- brokers that misbehave


@contextlib.contextmanager
def _listener(answer: bytes | None) -> Iterator[External]:
    """Something that accepts connections and is no broker; `answer` is sent to whoever comes, None: silence."""
    server = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                open_ones.append(connection)
                if answer is not None:
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield External("127.0.0.1", server.getsockname()[1], "", "", LIMITS)
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
        for connection in open_ones:
            connection.close()


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x7f", b"\xff" * 100, bytes(100)])
def test_something_that_is_no_broker_is_refused_with_a_clear_error(answer: bytes | None) -> None:
    limits = Limits(connect_s=0.5)
    with _listener(answer) as fake:

        async def scene() -> None:
            bus = _bus(fake, limits)
            with pytest.raises(ConnectionFailed, match="no connection to the broker") as caught:
                await bus.start()
            assert caught.value.who == "network"
            await bus.stop()

        asyncio.run(scene())


def test_a_wrong_password_is_a_clear_error(settings: Settings) -> None:
    async def scene() -> None:
        async with _broker(settings) as made:
            wrong = External(made.host, made.port, made.username, "wrong", LIMITS)
            bus = _bus(wrong)
            with pytest.raises(ConnectionFailed, match="no connection to the broker") as caught:
                await bus.start()
            assert "password" in str(caught.value.hint)

    asyncio.run(scene())


def test_nothing_is_queued_without_a_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        bus = _bus(External("127.0.0.1", 1, "", "", LIMITS))
        assert not bus.publish("lepta/v1/blobs/x/0", b"x", qos=1)
        with pytest.raises(ConnectionFailed, match="refused"):
            await bus.start()
        assert not bus.publish("lepta/v1/blobs/x/0", b"x", qos=0)
        await bus.stop()

    asyncio.run(scene())


def test_what_waits_for_a_slow_socket_is_bounded(settings: Settings) -> None:
    async def scene() -> None:
        async with _broker(settings) as made:
            bus = _bus(made, Limits(bus_in_flight=10, bus_out_bytes=1_000_000))
            await bus.start()
            sent = [bus.publish("lepta/v1/predictions/m/a", bytes(100_000), qos=0) for _ in range(50)]
            assert sent.count(True) <= 10
            assert await _until(lambda: bus.publish("lepta/v1/predictions/m/a", b"x", qos=0))
            await bus.stop()

    asyncio.run(scene())


def test_a_broker_that_takes_few_messages_at_once_gets_no_more(settings: Settings) -> None:
    async def scene() -> None:
        async with _broker(settings) as made:
            # Both brokers of ours take 200: a bus that would send more asks again with that.
            bus = _bus(made, Limits(bus_at_once=50_000))
            await bus.start()
            acked: list[int] = []
            sent = [
                bus.publish("lepta/v1/predictions/m/a", bytes(100), qos=1, on_acked=partial(acked.append, number))
                for number in range(900)
            ]
            assert all(sent)
            assert await _until(lambda: len(acked) == 900)
            await bus.stop()

    asyncio.run(scene())
