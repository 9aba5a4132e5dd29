"""The agent's connection, with a broker of a few bytes at the other end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.link import Broker, Link
from agent.loop import Loop
from agent.settings import Limits

CONNACK, GRANTED, NOT_AUTHORIZED = b"\x20\x03\x00\x00\x00", 0x00, 0x87


class Ear:
    """A link.Listener that remembers."""

    def __init__(self) -> None:
        self.up = False
        self.subscribed: list[tuple[str, str]] = []

    def link_up(self) -> None:
        self.up = True

    def link_down(self, reason: str) -> None:
        self.up = False

    def link_received(self, topic: str, payload: bytes) -> None:
        return

    def link_subscribed(self, topic: str, refused: str) -> None:
        self.subscribed.append((topic, refused))


def suback(subscribe: bytes, *codes: int) -> bytes:
    """The answer to a SUBSCRIBE packet (MQTT 5, 3.9) of less than 128 bytes: its own number, then a code per topic."""
    return bytes((0x90, 3 + len(codes))) + subscribe[2:4] + b"\0" + bytes(codes)


@contextmanager
def connected(ear: Ear, *wanted: str) -> Iterator[tuple[Loop, Link, socket.socket]]:
    """Its broker has let it in, and has yet to answer its subscription."""
    loop, (ours, theirs) = Loop(), socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    link = Link(loop, Broker("nowhere", 1), "edge", Limits(), connect=lambda _address, _timeout: ours)
    for topic in wanted:
        link.subscribe(topic)
    link.start(ear)
    with theirs:
        turn(loop, lambda: arrived(theirs, b"\x10"))
        theirs.sendall(CONNACK)
        turn(loop, lambda: ear.up)
        yield loop, link, theirs
        link.stop()
    loop.close()


def turn(loop: Loop, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        loop.run_once(0.01)


def arrived(theirs: socket.socket, kind: bytes) -> bytes:
    """The packet that came, once one of this kind has."""
    theirs.setblocking(False)
    try:
        packet = theirs.recv(1000)
    except BlockingIOError:
        return b""
    assert packet[:1] == kind, packet
    return packet


def test_each_topic_is_told_as_granted_or_with_the_brokers_reason() -> None:
    ear = Ear()
    with connected(ear, "a/open", "a/secret") as (loop, link, theirs):
        theirs.sendall(suback(arrived(theirs, b"\x82"), GRANTED, NOT_AUTHORIZED))
        turn(loop, lambda: ear.subscribed)
        assert ear.subscribed == [("a/open", ""), ("a/secret", "Not authorized")]
        link.subscribe("a/secret")
        turn(loop, lambda: True)
        theirs.sendall(suback(arrived(theirs, b"\x82"), GRANTED))
        turn(loop, lambda: len(ear.subscribed) == 3)
        assert ear.subscribed[-1] == ("a/secret", "")
