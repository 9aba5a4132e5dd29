"""The agent over TLS: what it trusts, what it shows, large messages both ways, and a clock that is years behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import trust
from agent.clock import Clock
from agent.contract.messages import Hello
from agent.contract.signing import PrivateKey
from agent.link import Broker, Link
from agent.loop import Loop
from agent.settings import Limits
from tests import builders
from tests.certificates import DAY, YEAR, TestAuthority
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, until
from tests.tls_front import TlsFront

ROW = {"x": np.zeros((1, builders.FEATURES), np.float32)}


class Place:
    """A broker, its controller, and a CA for what stands in front of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.broker = FakeBroker(folder)
        stack.callback(self.broker.stop)
        self.controller = FakeController(self.broker.broker)
        stack.callback(self.controller.close)
        self.authority = TestAuthority()
        self._stack = stack

    def front(self, authority: TestAuthority | None = None, host: str = "127.0.0.1", **server: Any) -> TlsFront:
        files = (authority or self.authority).server(self.folder, **server)
        return self._stack.enter_context(TlsFront(self.broker.port, files, self.authority.pem, host))

    def agent(self, front: TlsFront, url: str = "https://127.0.0.1:8000", **identity: Any) -> AgentProcess:
        """Not started yet. It finds the broker by the host of the controller's URL."""
        there = self.broker.broker
        folder = self.folder / "edge-1"
        folder.mkdir(exist_ok=True)
        request = trust.certification_request(PrivateKey.load_or_create(folder / "agent.key"))
        fields: dict[str, Any] = {
            "broker": Broker("", front.port, there.username, there.password, tls=True),
            "ca": self.authority.pem,
            "certificate": self.authority.device(request, "edge-1"),
            "controller_url": url,
        }
        return AgentProcess(self.folder, self.controller, **(fields | identity))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def test_an_agent_shows_its_certificate_and_serves_over_tls(place: Place) -> None:
    front = place.front()
    with place.agent(front) as agent:
        wanted = place.controller.serve(agent.name, builders.classifier(1), version=1)
        assert place.controller.infer(agent.name, wanted, ROW).version == 1
        assert front.peers == ["edge-1"]
        assert agent.stop() == 0
    assert (agent.folder / "agent.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("foreign", "server", "words"),
    [
        (True, {}, "not the controller that this device trusts"),
        (False, {"names": ["elsewhere.example"]}, "not valid for '127.0.0.1'"),
        (False, {"start": time.time() - YEAR, "end": time.time() - DAY}, "has expired: the clock here says"),
    ],
)
def test_a_broker_that_is_not_the_controllers_never_learns_who_we_are(
    place: Place, foreign: bool, server: dict[str, Any], words: str
) -> None:
    front = place.front(TestAuthority() if foreign else None, **server)
    with place.agent(front) as agent:
        until(lambda: words in agent.log.read_text(), words)
        assert front.peers == []


@pytest.mark.parametrize("vouched", [True, False])
def test_somebody_elses_broker_is_trusted_only_if_the_systems_store_vouches_for_it(place: Place, vouched: bool) -> None:
    files = place.authority.server(place.folder)
    store = place.folder / "store.pem"
    store.write_text((place.authority if vouched else TestAuthority()).pem)
    with ExitStack() as stack:
        front = stack.enter_context(TlsFront(place.broker.port, files, ""))
        there = place.broker.broker
        public = Broker("127.0.0.1", front.port, there.username, there.password, tls=True, public=True)
        agent = AgentProcess(place.folder, place.controller, broker=public, ca=place.authority.pem)
        stack.callback(agent.stop)
        agent.start(SSL_CERT_FILE=str(store), SSL_CERT_DIR=str(place.folder / "none"))
        if vouched:
            place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello")
            assert front.peers == ["nobody"]
        else:
            until(lambda: "not the controller that this device trusts" in agent.log.read_text(), "a refusal")
            assert front.peers == []


def test_a_device_whose_clock_is_years_behind_comes_back_and_remembers_the_time(place: Place) -> None:
    ahead = time.time() + 14 * YEAR
    front = place.front(start=ahead, end=ahead + YEAR)
    with place.agent(front) as agent:
        place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello from 14 years before")
        agent.stop()
    assert abs(float((agent.folder / "clock").read_text()) - ahead) < 60


@pytest.mark.parametrize("jump", [DAY, -DAY, -time.time()], ids=["a day ahead", "a day behind", "1970"])
def test_a_connection_outlives_a_jump_of_the_clock_and_the_next_one_comes_about_as_well(
    place: Place, jump: float
) -> None:
    front = place.front(start=time.time() - 60, end=time.time() + 7 * DAY)
    offset = place.folder / "offset"
    offset.write_text("0")
    agent = place.agent(front)
    try:
        agent.start(LEPTA_CLOCK_OFFSET_S=str(offset))
        wanted = place.controller.serve(agent.name, builders.classifier(1), version=1)
        offset.write_text(str(jump))
        assert place.controller.infer(agent.name, wanted, ROW).fault is None
        assert agent.stop() == 0
        place.controller.forget()
        agent.start(LEPTA_CLOCK_OFFSET_S=str(offset))
        place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello after the jump")
        assert place.controller.infer(agent.name, wanted, ROW).fault is None
    finally:
        agent.__exit__(None, None, None)


def test_an_expired_broker_is_let_in_only_while_the_clock_is_known_to_be_wrong(place: Place) -> None:
    front = place.front(start=time.time() - YEAR, end=time.time() - DAY)
    (place.folder / "edge-1").mkdir()
    (place.folder / "edge-1" / "clock").write_text(f"{time.time() + YEAR:.0f}\n")
    with place.agent(front) as agent:
        place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello")


def test_a_renewed_certificate_counts_from_the_next_connection_on(place: Place) -> None:
    front = place.front()
    with place.agent(front) as agent:
        place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello")
        key = PrivateKey.load_or_create(agent.folder / "agent.key")
        renewed = place.authority.device(trust.certification_request(key), "edge-1-renewed")
        (agent.folder / "agent.pem").write_text(renewed)
        front.cut()
        until(lambda: front.peers == ["edge-1", "edge-1-renewed"], "the new certificate is shown")


def test_an_agent_follows_an_ipv6_controller(place: Place) -> None:
    front = place.front(host="::1")
    with place.agent(front, url="https://[::1]:8000") as agent:
        place.controller.wait(Hello, lambda hello: hello.agent == agent.name, "a hello over IPv6")


class _Ear:
    def __init__(self) -> None:
        self.up = False
        self.heard: list[bytes] = []

    def link_up(self) -> None:
        self.up = True

    def link_down(self, reason: str) -> None:
        self.up = False

    def link_received(self, topic: str, payload: bytes) -> None:
        self.heard.append(payload)

    def link_subscribed(self, topic: str, refused: str) -> None:
        return


@pytest.mark.parametrize("pause", [0.0, 0.004], ids=["fast", "slow"])
def test_large_messages_go_both_ways_whole_and_the_loop_never_waits_for_the_network(place: Place, pause: float) -> None:
    front = place.front()
    front.pause = pause
    key = place.folder / "link.key"
    request = trust.certification_request(PrivateKey.load_or_create(key))
    certificate = place.folder / "link.pem"
    certificate.write_text(place.authority.device(request, "link"))
    door = trust.Door(place.authority.pem, Clock(None), (certificate, key))
    loop, ear, there = Loop(), _Ear(), place.broker.broker
    broker = Broker("127.0.0.1", front.port, there.username, there.password, tls=True)
    link = Link(loop, broker, "link", Limits(), connect=door.connect)
    link.subscribe("agents/link/result")
    link.start(ear)
    _turn(loop, lambda: ear.up, 5)
    payloads = [os.urandom(size) for size in (1, 100, 16_384, 16_385, 130_000) * 12]
    for payload in payloads:
        link.publish("agents/link/result", payload, qos=1, kept=True)
    longest = _turn(loop, lambda: len(ear.heard) == len(payloads), 20)
    assert ear.heard == payloads
    assert longest < 0.5
    link.stop()
    loop.close()


def _turn(loop: Loop, over: Any, patience: float) -> float:
    """Run until `over`; returns the longest turn in seconds, waiting included."""
    deadline, longest = time.monotonic() + patience, 0.0
    while not over():
        assert time.monotonic() < deadline
        began = time.monotonic()
        loop.run_once(0.05)
        longest = max(longest, time.monotonic() - began)
    return longest
