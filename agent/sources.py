"""Where blobs come from: broker, controller, mirror. Each blob takes the best way, and the next if that fails it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

from agent import ways
from agent.chunks import Ranges
from agent.ways import Choice, Turn, Way

_log = logging.getLogger("lepta.agent.fetch")
Who = Literal["user", "device", "network", "us"]


class Source(Protocol):
    """Sends chunks to `Fetcher.chunk`."""

    def begin(self, digest: str, public: bool) -> None: ...

    def ask(self, digest: str, size: int | None, ranges: Ranges) -> None: ...

    def end(self, digest: str) -> None: ...


class Sources:
    """`choice` tells what the device was told about fetching, which may change. `make` builds the source of a way when
    it is first needed: most agents never speak HTTP.

    A source that cannot go on calls `failed`. `give_up` is called when no way is left.
    """

    def __init__(self, choice: Callable[[], Choice], make: Callable[[Way], Source]) -> None:
        self._choice = choice
        self._make = make
        self._made: dict[Way, Source] = {}
        self._turns: dict[str, Turn] = {}
        self._arrived: dict[str, int] = {}
        self.give_up: Callable[[str, Who, str], None] = _nobody

    def way_of(self, digest: str) -> Literal["mqtt", "http"]:
        """As a swap record names it: a mirror speaks HTTP."""
        return "mqtt" if self._turns[digest].ways[:1] == ("mqtt",) else "http"

    def begin(self, digest: str, size: int | None, public: bool) -> None:
        self._turns[digest] = Turn(ways=ways.order(self._choice(), size, public), public=public)
        self._arrived[digest] = 0
        self._of(digest).begin(digest, public)

    def ask(self, digest: str, size: int | None, ranges: Ranges, now: float) -> None:
        self._turns[digest] = ways.asked(self._turns[digest], self._arrived[digest], now)
        self._of(digest).ask(digest, size, ranges)

    def look(self, digest: str, arrived: int, now: float) -> bool:
        """`arrived`: bytes so far. True if another way is taken from now on, which is to be asked at once."""
        self._arrived[digest] = arrived
        return self._take(digest, ways.looked(self._turns[digest], self._choice(), arrived, now), "it is too slow")

    def pause(self) -> None:
        """The connection went: that makes nobody slow."""
        self._turns = {digest: ways.paused(turn) for digest, turn in self._turns.items()}

    def failed(self, digest: str, way: Way, who: Who, reason: str, *, for_good: bool) -> None:
        """A source cannot go on, now or (`for_good`) ever."""
        turn = self._turns.get(digest)
        if turn is None or turn.ways[0] != way:
            return  # Left meanwhile.
        turn = ways.failed(turn, self._choice(), self._arrived[digest], for_good=for_good)
        if turn.ways:
            self._take(digest, turn, reason)
        else:
            self.give_up(digest, who, reason)

    def wrong(self, digest: str) -> bool:
        """What came is not the blob. True if another way is taken."""
        turn = self._turns[digest]
        return len(turn.ways) > 1 and self._take(digest, ways.left(turn), "it sends wrong bytes")

    def end(self, digest: str) -> None:
        self._of(digest).end(digest)
        del self._turns[digest], self._arrived[digest]

    def _take(self, digest: str, turn: Turn, reason: str) -> bool:
        before, self._turns[digest] = self._turns[digest], turn
        if turn.ways == before.ways:
            return False
        _log.warning("blob %s: %s is left for %s: %s", digest[:12], before.ways[0], turn.ways[0], reason)
        self._source(before.ways[0]).end(digest)
        self._of(digest).begin(digest, turn.public)
        return True

    def _of(self, digest: str) -> Source:
        return self._source(self._turns[digest].ways[0])

    def _source(self, way: Way) -> Source:
        if way not in self._made:
            self._made[way] = self._make(way)
        return self._made[way]


def _nobody(_digest: str, _who: Who, _reason: str) -> None:
    return
