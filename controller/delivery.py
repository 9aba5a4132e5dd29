"""Sends blobs to agents in chunks: each chunk once for everybody who asked, paced by the broker's acknowledgements.

An agent that needs a blob subscribes to its topic and tells which chunks are missing. What several agents ask for while
a blob is on its way is merged, so late joiners share the rest of the sending and get only its beginning a second time.
A private blob, the inputs of a request or a shard, goes on the asking agent's own topic, which no other agent may read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.contract import packing, topics
from agent.contract.messages import CHUNK_BYTES, Chunk, Message, Need
from agent.contract.packing import PACKINGS
from controller.errors import LeptaError

log = logging.getLogger("lepta.delivery")


class Sender(Protocol):
    """What delivery needs of the bus."""

    def send(self, topic: str, message: Message, *, on_acked: Callable[[], None]) -> bool:
        """Publish with QoS 1; False while there is no connection (nothing is queued)."""


class Files(Protocol):
    """What delivery needs of the catalog."""

    def size(self, digest: str) -> int | None:
        """Bytes of this digest; None if it is not here."""

    def piece(self, digest: str, offset: int, length: int) -> bytes:
        """Some of them; raises LeptaError, OSError."""

    def is_passing(self, digest: str) -> bool:
        """Is it on its way to one agent only?"""


@dataclass
class _Sending:
    digest: str
    agent: str
    """Whom it is for; empty: for everybody."""
    size: int
    packs: bool = False
    """May its chunks go packed? Until one shows that it does not pay."""
    missing: dict[int, None] = field(default_factory=dict)
    """Chunk numbers still to send, in order of asking; a dict because it is an ordered set."""

    def topic(self, number: int) -> str:
        return topics.agent_blob(self.agent, self.digest, number) if self.agent else topics.blob(self.digest, number)


class Delivery:
    """Owned by the event loop; call it from there only."""

    def __init__(self, bus: Sender, files: Files, *, window: int, most_blobs: int) -> None:
        """`window`: chunks in flight at the broker. `most_blobs`: sent at a time."""
        self._bus = bus
        self._files = files
        self._window = window
        self._most_blobs = most_blobs
        self._in_flight = 0
        self._epoch = 0
        self._sendings: dict[tuple[str, str], _Sending] = {}
        self.on_sent: Callable[[str, str, int, int], object] = lambda agent, digest, size, wire: None
        """Told of each private chunk: for whom, of which blob, its bytes, and its bytes on the way."""
        self.bytes_sent = 0
        self.refused = 0

    def need(self, agent: str, need: Need) -> None:
        """An agent misses chunks. Unknown blobs and more blobs than allowed are refused; the agent asks again."""
        reader = agent if need.private or self._files.is_passing(need.digest) else ""
        sending = self._sendings.get((need.digest, reader))
        if sending is None:
            size = self._files.size(need.digest)
            if size is None or len(self._sendings) >= self._most_blobs:
                self.refused += 1
                log.warning(
                    "not sending blob %s: %s", need.digest[:12], "unknown" if size is None else "too many at once"
                )
                return
            packs = bool(reader) and PACKINGS[0] in need.packings
            sending = _Sending(need.digest, reader, size, packs)
            self._sendings[need.digest, reader] = sending
        chunks = -(-sending.size // CHUNK_BYTES) or 1
        for first, last in need.ranges:
            sending.missing.update(dict.fromkeys(range(first, min(last, chunks - 1) + 1)))
        self._pump()

    def reconnected(self) -> None:
        """The broker forgot what was in flight; agents ask for what they miss."""
        self._epoch += 1
        self._in_flight = 0
        self._sendings.clear()

    def _pump(self) -> None:
        while self._in_flight < self._window and self._sendings:
            # Blobs take turns, so that a large one does not keep a small one waiting.
            key, sending = next(iter(self._sendings.items()))
            del self._sendings[key]
            if not sending.missing:
                continue
            number = next(iter(sending.missing))
            del sending.missing[number]
            try:
                sent = self._send(sending, number)
            except (
                OSError,
                LeptaError,
            ) as error:  # Removed meanwhile, or the disk fails: who still wants it asks again.
                self.refused += 1
                log.warning("blob %s cannot be sent any more: %s", sending.digest[:12], error)
                continue
            self._sendings[key] = sending
            if not sent:
                self._sendings.clear()
                return

    def _send(self, sending: _Sending, number: int) -> bool:
        content = self._files.piece(sending.digest, number * CHUNK_BYTES, CHUNK_BYTES)
        sending.packs = sending.packs and packing.pays(content)
        if sending.packs:
            chunk = Chunk(size=sending.size, data=packing.pack(content), packing=PACKINGS[0])
        else:
            chunk = Chunk(size=sending.size, data=content)
        epoch = self._epoch

        def acked() -> None:
            if epoch == self._epoch:
                self._in_flight -= 1
                self._pump()

        if not self._bus.send(sending.topic(number), chunk, on_acked=acked):
            return False
        self._in_flight += 1
        self.bytes_sent += len(chunk.data)
        if sending.agent:
            self.on_sent(sending.agent, sending.digest, len(content), len(chunk.data))
        return True
