"""What the benchmark of swaps reads from a connection is what was sent on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.swap.packets import Packets, Published

PING, PUBACK = b"\xd0\x00", b"\x40\x02\x00\x01"
published = st.builds(Published, st.text(min_size=1, max_size=20), st.binary(max_size=300))


def number(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def packet(said: Published, qos: int, properties: bytes) -> bytes:
    topic = said.topic.encode()
    body = len(topic).to_bytes(2, "big") + topic + (b"\x00\x07" if qos else b"")
    body += number(len(properties)) + properties + said.payload
    return bytes([0x30 | qos << 1]) + number(len(body)) + body


@given(said=st.lists(st.tuples(published, st.sampled_from([0, 1]), st.binary(max_size=200))), size=st.integers(1, 500))
def test_messages_are_found_whatever_pieces_they_come_in(said: list[tuple[Published, int, bytes]], size: int) -> None:
    stream = b"".join(PING + packet(*each) + PUBACK for each in said)
    packets = Packets()
    found = [each for at in range(0, len(stream), size) for each in packets.feed(stream[at : at + size])]
    assert found == [each for each, _, _ in said]
    assert packets.unfinished == 0


def test_a_packet_that_is_not_whole_is_counted_and_not_told() -> None:
    packets = Packets()
    whole = packet(Published("a", bytes(1000)), 1, b"")
    assert packets.feed(whole[:900]) == []
    assert packets.unfinished == 900
    assert packets.feed(whole[900:]) == [Published("a", bytes(1000))]
