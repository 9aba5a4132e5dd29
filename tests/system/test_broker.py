"""Brokers of our own as real processes: the same guarantees for the embedded one and for mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.contract.children import environment
from controller import broker
from controller.broker import Broker, BrokerError, Spawned
from controller.errors import Conflict, UserError
from controller.settings import Limits, Settings
from tests.waiting import until

SECRET = "correct horse"


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.debian)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, broker=request.param)


def _scene(settings: Settings, act: Callable[[Spawned], Awaitable[None]]) -> None:
    """Run `act` beside a started broker and stop it; then no child may be left."""

    async def scene() -> None:
        made = broker.create(settings, SECRET)
        assert isinstance(made, Spawned)
        try:
            await made.start()
            await act(made)
        finally:
            await made.stop()
        assert not made.alive

    asyncio.run(scene())
    assert _children() == []


def _children() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


@contextlib.contextmanager
def _client(made: Broker, password: str = SECRET, name: str = "probe") -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.username_pw_set(made.username, password)
    client.connect(made.host, made.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _delivers(made: Broker, payload: bytes) -> bool:
    got: list[bytes] = []
    with _client(made, name="taker") as taker, _client(made, name="giver") as giver:
        subscribed: list[object] = []
        taker.on_subscribe = lambda *values: subscribed.append(values)
        taker.on_message = lambda _client, _data, message: got.append(bytes(message.payload))
        assert until(taker.is_connected)
        taker.subscribe("some/topic", 1)
        assert until(lambda: subscribed)
        giver.publish("some/topic", payload, 1).wait_for_publish(5)
        return until(lambda: got == [payload], 5)


def test_it_carries_messages_larger_than_the_contract_allows_and_stops_without_a_trace(settings: Settings) -> None:
    async def act(made: Spawned) -> None:
        assert made.alive
        assert await asyncio.to_thread(_delivers, made, os.urandom(256 * 1024))

    _scene(settings, act)


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(settings: Settings, password: str) -> None:
    def tries(made: Spawned) -> None:
        with _client(made, password) as client:
            assert not until(client.is_connected, 1.0)
        with _client(made) as client:
            assert until(client.is_connected)

    async def act(made: Spawned) -> None:
        await asyncio.to_thread(tries, made)

    _scene(settings, act)


def test_a_broker_that_dies_is_started_again_on_the_same_port(settings: Settings) -> None:
    async def act(made: Spawned) -> None:
        for _ in range(2):
            (child,) = psutil.Process().children()
            child.kill()
            await asyncio.sleep(0.1)
            assert not made.alive
            assert await asyncio.to_thread(until, lambda: made.alive)
        assert await asyncio.to_thread(_delivers, made, b"again")

    _scene(settings, act)


def test_it_takes_the_same_port_after_a_restart_of_the_controller(settings: Settings) -> None:
    ports: list[int] = []

    async def act(made: Spawned) -> None:
        ports.append(made.port)

    _scene(settings, act)
    _scene(settings, act)
    assert ports[0] == ports[1]


def test_secrets_are_in_private_files_and_not_on_any_command_line(settings: Settings) -> None:
    async def act(_: Spawned) -> None:
        assert not any(SECRET in line for line in _children())
        for path in (settings.data / "broker").iterdir():
            if path.suffix in (".toml", ".conf", ".passwd"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600

    _scene(settings, act)


def test_it_listens_on_loopback_only(settings: Settings) -> None:
    async def act(made: Spawned) -> None:
        child = psutil.Process().children()[0]
        listening = [tuple(c.laddr) for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening == [("127.0.0.1", made.port)]

    _scene(settings, act)


def test_a_port_in_use_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            asyncio.run(broker.create(replace(settings, broker_port=port), SECRET).start())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_other_machines_are_refused(settings: Settings, host: str) -> None:
    with pytest.raises(UserError, match="this machine only") as caught:
        broker.create(replace(settings, broker_host=host), SECRET)
    assert "lepta up --lan" in str(caught.value.hint)


def test_a_broker_that_cannot_start_says_what_it_said(settings: Settings) -> None:
    bad = replace(settings, limits=Limits(broker_payload_bytes=-1, broker_start_s=5.0))
    with pytest.raises(BrokerError, match=r"broker (ended at its start|did not start)") as caught:
        asyncio.run(broker.create(bad, SECRET).start())
    assert "broker.log" in str(caught.value.hint)
    assert _children() == []


_PARENT = """
import asyncio, sys
from pathlib import Path
from controller import broker
from controller.settings import Settings
async def scene():
    made = broker.create(Settings(data=Path(sys.argv[1]), broker=sys.argv[2]), "secret")
    await made.start()
    print(made.port, flush=True)
    await asyncio.sleep(60)
asyncio.run(scene())
"""


def test_it_does_not_outlive_a_controller_that_is_killed(settings: Settings) -> None:
    command = [sys.executable, "-c", _PARENT, str(settings.data), settings.broker]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline())
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 1
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, left = psutil.wait_procs(family, timeout=5)
    assert left == []


# -- choosing


@pytest.mark.parametrize("address", ["nonsense", "http://host", "mqtt://", "mqtt://host:port", "mqtts://"])
def test_an_unusable_address_is_refused_with_what_is_allowed(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError) as caught:
        broker.create(Settings(data=tmp_path, broker=address), SECRET)
    assert "mqtt[s]://" in str(caught.value.hint)


@pytest.mark.parametrize(("address", "port"), [("mqtts://example.org", 8883), ("mqtts://example.org:1", 1)])
def test_mqtts_speaks_tls(tmp_path: Path, address: str, port: int) -> None:
    made = broker.create(Settings(data=tmp_path, broker=address), SECRET)
    assert (made.host, made.port, made.tls) == ("example.org", port, True)


def test_an_address_gives_host_port_and_credentials(tmp_path: Path) -> None:
    made = broker.create(Settings(data=tmp_path, broker="mqtt://ann:p%40ss@example.org:2883"), SECRET)
    assert (made.kind, made.host, made.port) == ("external", "example.org", 2883)
    assert (made.username, made.password) == ("ann", "p@ss")


def test_an_unreachable_broker_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    made = broker.create(Settings(data=tmp_path, broker=f"mqtt://127.0.0.1:{port}"), SECRET)
    with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port} cannot be reached") as caught:
        asyncio.run(made.start())
    assert caught.value.who == "network"


def test_the_settings_do_not_show_a_password(tmp_path: Path) -> None:
    assert "hidden" not in repr(Settings(data=tmp_path, broker="mqtt://ann:hidden@example.org"))
