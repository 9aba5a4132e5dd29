"""Chunks on their way out: each once for everybody, paced by acknowledgements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.contract import topics
from agent.contract.messages import CHUNK_BYTES, Chunk, Message, Need
from controller.delivery import Delivery

DIGEST, OTHER = "a" * 64, "b" * 64
AGENT = "pi"


class SlowBroker:
    """The bus's port with a broker that acknowledges when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Chunk]] = []
        self.unacked: list[Callable[[], None]] = []
        self.connected = True

    def send(self, topic: str, message: Message, *, on_acked: Callable[[], None]) -> bool:
        if not self.connected:
            return False
        assert isinstance(message, Chunk)
        self.sent.append((topic, message))
        self.unacked.append(on_acked)
        return True

    def acknowledge_all(self) -> None:
        while self.unacked:
            self.unacked.pop(0)()

    def numbers(self, digest: str = DIGEST) -> list[int]:
        return [int(topic.rsplit("/", 1)[1]) for topic, _ in self.sent if digest in topic]


class Folder:
    """The catalog's port on a folder of files; `passing` names those that are for one agent."""

    def __init__(self, path: Path, passing: tuple[str, ...]) -> None:
        self._path, self._passing = path, passing

    def size(self, digest: str) -> int | None:
        path = self._path / digest
        return path.stat().st_size if path.exists() else None

    def piece(self, digest: str, offset: int, length: int) -> bytes:
        return (self._path / digest).read_bytes()[offset : offset + length]

    def is_passing(self, digest: str) -> bool:
        return digest in self._passing


def make(
    tmp_path: Path, chunks: int, window: int = 4, passing: tuple[str, ...] = ()
) -> tuple[Delivery, SlowBroker, bytes]:
    content = bytes(range(256)) * (CHUNK_BYTES // 256) * chunks
    for digest in (DIGEST, OTHER):
        (tmp_path / digest).write_bytes(content)
    broker = SlowBroker()
    return Delivery(broker, Folder(tmp_path, passing), window=window, most_blobs=2), broker, content


def test_all_asked_chunks_arrive_in_order_and_whole(tmp_path: Path) -> None:
    delivery, broker, content = make(tmp_path, 10)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    broker.acknowledge_all()
    assert broker.numbers() == list(range(10))
    assert b"".join(chunk.data for _, chunk in broker.sent) == content
    assert {chunk.size for _, chunk in broker.sent} == {len(content)}
    assert broker.sent[3][0] == topics.blob(DIGEST, 3)


def test_no_more_than_the_window_is_in_flight(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    assert len(broker.sent) == 4
    broker.unacked.pop(0)()
    assert len(broker.sent) == 5


def test_twenty_agents_cost_one_sending(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10)
    for _ in range(20):
        delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    broker.acknowledge_all()
    # What was in flight when the others asked is sent again, nothing else.
    assert len(broker.sent) <= 10 + 4
    assert set(broker.numbers()) == set(range(10))


def test_only_missing_ranges_are_sent(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((2, 3), (7, 7))))
    broker.acknowledge_all()
    assert broker.numbers() == [2, 3, 7]


def test_a_small_blob_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10, window=2)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    delivery.need(AGENT, Need(digest=OTHER, ranges=((0, 0),)))
    broker.unacked.pop(0)()
    broker.unacked.pop(0)()
    assert broker.numbers(OTHER) == [0]
    assert len(broker.numbers()) <= 4


def test_unknown_blobs_absurd_ranges_and_too_many_at_once_are_harmless(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 1)
    delivery.need(AGENT, Need(digest="c" * 64, ranges=((0, 9),)))
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((5, 2), (0, 10**9))))
    broker.acknowledge_all()
    assert broker.numbers() == [0]
    assert delivery.refused == 1


def test_after_a_reconnect_only_what_is_asked_again_is_sent(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    stale = list(broker.unacked)
    broker.unacked.clear()
    delivery.reconnected()
    for ack in stale:
        ack()
    assert len(broker.sent) == 4
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((8, 9),)))
    assert broker.numbers()[4:] == [8, 9]


def test_without_a_connection_nothing_is_queued(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10)
    broker.connected = False
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    broker.connected = True
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((1, 1),)))
    broker.acknowledge_all()
    assert broker.numbers() == [1]


def test_a_blob_that_is_removed_while_it_is_sent_stops_nobody_else(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10, window=1)
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 9),)))
    delivery.need(AGENT, Need(digest=OTHER, ranges=((0, 1),)))
    (tmp_path / DIGEST).unlink()
    broker.acknowledge_all()
    assert broker.numbers(OTHER) == [0, 1]
    assert delivery.refused == 1


def test_who_joins_late_gets_the_rest_with_the_others_and_only_the_beginning_again(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 10, window=1)
    delivery.need("pi-1", Need(digest=DIGEST, ranges=((0, 9),)))
    for _ in range(5):
        broker.unacked.pop(0)()
    delivery.need("pi-2", Need(digest=DIGEST, ranges=((0, 9),)))
    broker.acknowledge_all()
    assert broker.numbers() == [*range(10), *range(6)]


def test_an_empty_blob_has_one_empty_chunk(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 1)
    (tmp_path / DIGEST).write_bytes(b"")
    delivery.need(AGENT, Need(digest=DIGEST, ranges=((0, 0),)))
    assert [chunk.data for _, chunk in broker.sent] == [b""]


def test_what_is_for_one_agent_goes_on_its_own_topic_only(tmp_path: Path) -> None:
    delivery, broker, content = make(tmp_path, 3, passing=(DIGEST,))
    delivery.need("pi-1", Need(digest=DIGEST, ranges=((0, 2),)))
    broker.acknowledge_all()
    assert [topic for topic, _ in broker.sent] == [topics.agent_blob("pi-1", DIGEST, number) for number in range(3)]
    assert b"".join(chunk.data for _, chunk in broker.sent) == content


def test_two_agents_that_need_the_same_private_bytes_get_them_each(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 2, passing=(DIGEST,))
    for agent in ("pi-1", "pi-2"):
        delivery.need(agent, Need(digest=DIGEST, ranges=((0, 1),)))
    broker.acknowledge_all()
    wanted = {topics.agent_blob(agent, DIGEST, number) for agent in ("pi-1", "pi-2") for number in (0, 1)}
    assert {topic for topic, _ in broker.sent} == wanted


def test_a_private_blob_and_a_shared_one_take_turns(tmp_path: Path) -> None:
    delivery, broker, _ = make(tmp_path, 2, window=2, passing=(DIGEST,))
    delivery.need("pi-1", Need(digest=DIGEST, ranges=((0, 1),)))
    delivery.need("pi-1", Need(digest=OTHER, ranges=((0, 1),)))
    broker.acknowledge_all()
    assert {topic for topic, _ in broker.sent if OTHER in topic} == {topics.blob(OTHER, number) for number in (0, 1)}
