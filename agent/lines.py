"""PURE: what waits for one model: requests before shards, bounded, each with a deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from agent import frames
from agent.contract.messages import Infer, Work


class Ask(msgspec.Struct, eq=False):
    """A program on this device asks; only the worker looks into the question."""

    model: str
    question: frames.Question
    answered: Callable[[Waiting, frames.Computed, Any], None]
    """As that of `Fed`."""

    @property
    def blob(self) -> None:
        """Its inputs come with it."""


class Fed(msgspec.Struct, eq=False):
    """What came on a bound topic; only the worker looks into it."""

    model: str
    feed: frames.Feed
    answered: Callable[[Waiting, frames.Computed, Any], None]
    """Gets the member of `serving` that computed it, None if none did."""

    @property
    def blob(self) -> None:
        """Its input comes with it."""


class Waiting(msgspec.Struct, eq=False):
    """A request or shard on its way to a worker. Times in monotonic seconds."""

    message: Infer | Work | Ask | Fed
    received: float
    expires: float
    sent: float = 0.0
    """When a worker got it."""
    retried: bool = False
    blob: str = ""
    """Path of the blob with its inputs, once that is fetched."""
    fetched: int = 0
    """Bytes of it that came for this."""
    is_shard: bool = False

    def __post_init__(self) -> None:
        self.is_shard = isinstance(self.message, Work)  # Asked for again and again.

    @property
    def together(self) -> bool:
        """May its answer leave in one message with others?"""
        return isinstance(self.message, Infer) and self.message.together


class Line:
    """First in, first out, per kind. Nothing that expired is handed out."""

    def __init__(self, requests: int, shards: int) -> None:
        self._limits = (requests, shards)
        self.requests: deque[Waiting] = deque()
        self.shards: deque[Waiting] = deque()
        self.expired = 0

    def __len__(self) -> int:
        return len(self.requests) + len(self.shards)

    def offer(self, item: Waiting) -> bool:
        """Put at the end; False if there is no room."""
        queue, limit = (self.shards, self._limits[1]) if item.is_shard else (self.requests, self._limits[0])
        if len(queue) >= limit:
            return False
        queue.append(item)
        return True

    def give_back(self, items: list[Waiting]) -> None:
        """Put what a dead worker held in front again, in its old order; these always find room."""
        for item in reversed(items):
            (self.shards if item.is_shard else self.requests).appendleft(item)

    @property
    def suspect(self) -> bool:
        """Was the next request in a worker that ended?"""
        return bool(self.requests) and self.requests[0].retried

    def take(self, now: float, *, shards: bool) -> Waiting | None:
        """The next one that has not expired; a shard only if `shards` and no request waits."""
        for queue in (self.requests, self.shards) if shards else (self.requests,):
            while queue:
                item = queue.popleft()
                if item.expires > now:
                    return item
                self.expired += 1
        return None

    def blobs(self) -> set[str]:
        """Digests of the inputs of what waits: they must stay on disk."""
        return {digest for item in (*self.requests, *self.shards) for digest in blob_of(item)}

    def drop_shard(self, key: tuple[str, int, int]) -> None:
        """Forget a shard that waits."""
        kept = [item for item in self.shards if shard_key(item) != key]
        self.shards = deque(kept)

    def clear(self) -> list[Waiting]:
        """Empty the line and return what was in it."""
        items = [*self.requests, *self.shards]
        self.requests.clear()
        self.shards.clear()
        return items


def blob_of(item: Waiting) -> set[str]:
    """The digest of its inputs, if they lie in a blob."""
    return {item.message.blob.digest} if item.message.blob is not None else set()


def shard_key(item: Waiting) -> tuple[str, int, int]:
    work = item.message
    assert isinstance(work, Work)
    return work.job, work.shard, work.attempt
