"""Stands between one agent and its broker, cuts the connection in the middle of a blob, and counts what came of it."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self

from agent.contract import topics
from agent.contract.messages import Chunk, Need, decode_as
from agent.contract.wire import no_delay
from tests.benchmarks.swap.packets import Packets, Published

HOST = "127.0.0.1"
_PIECE = 16 * 1024
_STOP_S = 5.0
_BYTES_S = 4_000_000
"""What the line to the agent carries: on loopback, a blob lies in the kernel before the agent reads any of it."""


class Cutter:
    """Passes a plain connection on. The first one ends inside chunk number `after` (counted as they come) of the blob.

    A context manager; threads, because what a blocking socket took is what left for the agent.
    """

    def __init__(self, broker_port: int, digest: str, after: int) -> None:
        self._broker_port = broker_port
        self._digest = digest
        self._after = after
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = []
        self._sizes: dict[int, int] = {}
        self.came: list[int] = []
        """Numbers of the chunks that went to the agent whole, in order."""
        self.cut_at: int | None = None
        """How many of them had come at the cut."""
        self.torn = 0
        """Bytes of the chunk in which the connection ended."""
        self.asked: list[int] = []
        """Chunks that the agent asked for after the cut."""

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, *self._open):
            _end(sock)
        for thread in self._threads:
            thread.join(_STOP_S)
        for sock in (self._listener, *self._open):
            sock.close()

    @property
    def received(self) -> int:
        """Bytes of the blob that went to the agent, those of the torn chunk with them."""
        return sum(self._sizes[number] for number in self.came) + self.torn

    def asked_again(self) -> list[int]:
        """Chunks that had come whole before the cut, and were asked for all the same."""
        before = set(self.came[: self.cut_at])
        return sorted(before.intersection(self.asked))

    def _accept(self) -> None:
        while True:
            try:
                agent, _ = self._listener.accept()
            except OSError:  # Closed: it is over.
                return
            broker = socket.create_connection((HOST, self._broker_port))
            for sock in (agent, broker):
                no_delay(sock)
                self._open.append(sock)
            for work in (self._up, self._down):
                thread = threading.Thread(target=work, args=(agent, broker), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _up(self, agent: socket.socket, broker: socket.socket) -> None:
        packets = Packets()
        while piece := _read(agent):
            for published in packets.feed(piece):
                self._note_need(published)
            _write(broker, piece)
        _end(broker)

    def _down(self, agent: socket.socket, broker: socket.socket) -> None:
        packets = Packets()
        while piece := _read(broker):
            _write(agent, piece)
            time.sleep(len(piece) / _BYTES_S)
            for published in packets.feed(piece):
                self._note_chunk(published)
            if self.cut_at is None and len(self.came) >= self._after and packets.unfinished > _PIECE:
                self.cut_at, self.torn = len(self.came), packets.unfinished
                _end(broker)
                break
        _end(agent)

    def _note_chunk(self, published: Published) -> None:
        topic = topics.parse(published.topic)
        if topic is not None and topic.kind == "blobs" and topic.names[0] == self._digest:
            number = int(topic.names[1])
            self._sizes[number] = len(decode_as(Chunk, topic.kind, published.payload).data)
            self.came.append(number)

    def _note_need(self, published: Published) -> None:
        topic = topics.parse(published.topic)
        if self.cut_at is None or topic is None or topic.kind != "agents/need":
            return
        need = decode_as(Need, topic.kind, published.payload)
        if need.digest == self._digest:
            self.asked += [number for first, last in need.ranges for number in range(first, last + 1)]


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_PIECE)
    except OSError:
        return b""


def _write(sock: socket.socket, piece: bytes) -> None:
    try:
        sock.sendall(piece)
    except OSError:  # The other side went; reading tells.
        return


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
