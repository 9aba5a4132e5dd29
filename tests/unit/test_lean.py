"""The short way past paho: what it takes out, what it leaves, and that nothing changes its order."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.lean import LeanSocket, encode_publish, packet_end

PING = b"\xd0\x00"
QOS_1 = b"\x32\x08\x00\x01a\x00\x01\x00hi"
QOS_1_AGAIN = b"\x3a" + QOS_1[1:]
QOS_1_RETAINED = b"\x33" + QOS_1[1:]
WITH_PROPERTIES = b"\x30\x09\x00\x01a\x05\x02\x00\x00\x00\x09"

messages = st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), st.binary(max_size=3000))


@contextmanager
def pair() -> Iterator[tuple[LeanSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield LeanSocket(ours), theirs


def drain(sock: LeanSocket) -> list[object]:
    """What comes out, as the two clients read it: messages, and the packets that are left to paho."""
    found: list[object] = []
    sock.fill()
    while True:
        found += sock.messages()
        if not sock.waiting:
            return found
        head = sock.recv(1)
        length = sock.recv(1)
        found.append(head + length + (sock.recv(length[0]) if length[0] else b""))


@given(st.lists(messages, max_size=5))
def test_messages_come_as_they_were_sent(sent: list[tuple[str, bytes]]) -> None:
    with pair() as (sock, theirs):
        theirs.sendall(b"".join(encode_publish(*message) for message in sent))
        assert drain(sock) == sent


@given(
    st.lists(st.sampled_from(["message", PING, QOS_1_AGAIN, QOS_1_RETAINED, WITH_PROPERTIES]), max_size=12),
    st.integers(1, 7),
)
def test_other_packets_are_left_in_their_order_however_the_bytes_arrive(kinds: list[object], size: int) -> None:
    sent = [("a/b", b"payload") if kind == "message" else kind for kind in kinds]
    content = b"".join(encode_publish(*each) if isinstance(each, tuple) else each for each in sent)  # type: ignore[misc]
    found: list[object] = []
    with pair() as (sock, theirs):
        for at in range(0, len(content), size):
            theirs.sendall(content[at : at + size])
            found += drain(sock)
    assert found == sent


def test_messages_of_qos_1_are_taken_and_acknowledged_in_their_order() -> None:
    with pair() as (sock, theirs):
        theirs.setblocking(False)
        theirs.sendall(QOS_1 + encode_publish("b", b"0") + QOS_1.replace(b"\x00\x01\x00hi", b"\x12\x34\x00ho"))
        assert drain(sock) == [("a", b"hi"), ("b", b"0"), ("a", b"ho")]
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        sock.flush()
        sock.flush()  # Once is enough.
        assert theirs.recv(100) == b"\x40\x02\x00\x01" + b"\x40\x02\x12\x34"


def test_while_paho_has_something_to_write_it_gets_the_messages_that_it_acknowledges_itself() -> None:
    with pair() as (sock, theirs):
        theirs.sendall(encode_publish("b", b"0") + QOS_1)
        sock.fill()
        assert sock.messages(qos_1=False) == [("b", b"0")]
        assert sock.waiting
        assert not sock.put
        assert sock.messages() == [("a", b"hi")]


def test_nothing_comes_between_the_parts_of_what_paho_sends() -> None:
    with pair() as (sock, theirs):
        packet = encode_publish("big", bytes(4_000_000))
        sent = sock.send(packet)
        assert 0 < sent < len(packet)
        theirs.sendall(QOS_1)
        assert drain(sock) == [("a", b"hi")]
        received = bytearray()
        while sent < len(packet):
            received += theirs.recv(1 << 20)
            sock.flush()
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(packet[sent:])
        sock.flush()
        whole = packet + b"\x40\x02\x00\x01"
        while len(received) < len(whole):
            received += theirs.recv(1 << 20)
        assert received == whole


def test_a_message_of_qos_1_that_is_cut_short_is_not_taken() -> None:
    with pair() as (sock, theirs):
        theirs.sendall(b"\x32\x05\x00\x01a\x00\x01")  # It ends where its properties would begin.
        sock.fill()
        assert sock.messages() == []
        assert not sock.put
        assert sock.waiting


def test_the_end_of_the_connection_is_left_to_paho() -> None:
    with pair() as (sock, theirs):
        theirs.sendall(encode_publish("a", b"last"))
        theirs.close()
        sock.fill()
        assert sock.messages() == [("a", b"last")]
        sock.fill()
        assert sock.waiting
        assert sock.recv(1) == b""


def test_a_length_that_is_none_is_left_to_paho() -> None:
    with pair() as (sock, theirs):
        theirs.sendall(b"\x30" + b"\xff" * 8)
        sock.fill()
        assert sock.messages() == []
        assert sock.waiting
        assert sock.recv(100) == b"\x30" + b"\xff" * 5


def test_what_the_socket_does_not_take_at_once_is_sent_before_anything_else() -> None:
    with pair() as (sock, theirs):
        big = b"x" * 4_000_000
        assert sock.publish("a", big)
        sock.flush()
        assert not sock.publish("a", b"second")
        with pytest.raises(BlockingIOError):
            sock.send(PING)
        received = bytearray()
        while sock.unsent:
            received += theirs.recv(1 << 20)
            sock.flush()
        assert sock.send(PING) == 2
        whole = encode_publish("a", big) + PING
        while len(received) < len(whole):
            received += theirs.recv(1 << 20)
        assert received == whole


def test_what_was_put_goes_in_one_write_and_before_what_paho_sends() -> None:
    with pair() as (sock, theirs):
        theirs.setblocking(False)
        put = b"".join(encode_publish("a", payload) for payload in (b"1", b"2"))
        for payload in (b"1", b"2"):
            assert sock.publish("a", payload)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        sock.flush()
        assert theirs.recv(100) == put
        for payload in (b"1", b"2"):
            assert sock.publish("a", payload)
        sock.send(PING)
        assert theirs.recv(100) == put + PING


@given(st.integers(0, 268_435_455))
def test_lengths_are_read_as_the_standard_writes_them(length: int) -> None:
    left, head = length, bytearray(b"\x30")
    while True:
        head.append(left % 128 | (128 if left >= 128 else 0))
        left //= 128
        if not left:
            break
    assert packet_end(head, 0) == (len(head), len(head) + length)
    assert packet_end(head[:-1], 0) is None
