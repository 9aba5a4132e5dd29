"""Blobs from the controller into the store, chunk by chunk; what is on disk is never asked for again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Literal

import msgspec

from agent.blobs import BlobError, Blobs, WrongBytesError
from agent.chunks import Budget, Missing, first_of
from agent.loop import Loop, Timer
from agent.settings import Limits
from agent.sources import Sources

_log = logging.getLogger("lepta.agent.fetch")
_TICK_S = 0.1
_SPOILT = 2


class Outcome(msgspec.Struct, frozen=True):
    """How a fetch ended: `error` empty if the blob is in the store. `arrived` in bytes."""

    arrived: int
    held: bool = False
    who: Literal["user", "device", "network", "us"] = "network"
    error: str = ""
    way: Literal["mqtt", "http"] = "mqtt"


Done = Callable[[Outcome], None]


class _Fetch:
    def __init__(self, size: int | None, limits: Limits) -> None:
        most = (limits.blob_mb << 20) if size is not None else limits.manifest_kb << 10
        self.missing = Missing(size, most, limits.chunk_silence, limits.chunk_asks)
        self.waiting: list[Done] = []
        self.public = False
        """Does somebody want it who wants it durable?"""
        self.spoilt = 0
        self.sealing = False
        self.unsecured = 0
        """Bytes that a power cut would take."""
        self.securing = False


class Fetcher:
    """Every fetch of one agent. Several may want the same blob; it is fetched once."""

    def __init__(
        self, loop: Loop, blobs: Blobs, sources: Sources, limits: Limits, pinned: Callable[[], Collection[str]]
    ) -> None:
        self._loop = loop
        self._blobs = blobs
        self._sources = sources
        self._sources.give_up = self.failed
        self._budget = Budget(limits.fetch_kb_s * 1024, loop.now())
        self._limits = limits
        self._pinned = pinned
        self._fetches: dict[str, _Fetch] = {}
        self._timer: Timer | None = None
        self.online = False

    def want(self, digest: str, size: int | None, done: Done, *, public: bool = True) -> None:
        """Have the blob in the store; `done` is called once, later, also if it is there already. No mirror is asked for
        one that is not `public`: the inputs of a request or a shard.
        """
        if self._blobs.holds(digest, size):
            self._blobs.touch(digest)
            self._held(digest, done, public)
            return
        fetch = self._fetches.get(digest)
        if fetch is None:
            fetch = self._fetches[digest] = _Fetch(size, self._limits)
            self._sources.begin(digest, size, public)
            self._loop.call_soon(lambda: self._prepare(digest, fetch))
        fetch.public = fetch.public or public
        fetch.waiting.append(done)

    def forget(self, done: Done) -> None:
        """Whoever asked with `done` does not want it any more."""
        for digest, fetch in list(self._fetches.items()):
            if done in fetch.waiting:
                fetch.waiting.remove(done)
                if not fetch.waiting and not fetch.sealing:
                    self._drop(digest)

    def chunk(self, digest: str, number: int, size: int, data: bytes) -> bool:
        """Take a chunk from the source; False if it is not wanted. Raises ChunkError if it is wrong."""
        fetch = self._fetches.get(digest)
        if fetch is None or fetch.sealing or not fetch.missing.check(number, size, len(data)):
            return False
        try:
            if fetch.missing.size is None or not fetch.missing.known_here:
                fetch.missing.known(size, self._blobs.begin(digest, size, self._keep()))
                if fetch.missing.complete:  # All of it was here from an earlier try; only its size was not known.
                    self._seal(digest, fetch)
                    return True
                if not fetch.missing.check(number, size, len(data)):
                    return False
            self._blobs.write(digest, number, data)
        except (OSError, BlobError) as error:
            self._no_room(digest, error)
            return True
        fetch.missing.came(number, len(data), self._loop.now())
        fetch.unsecured += len(data)
        if fetch.missing.complete:
            self._seal(digest, fetch)
        elif fetch.public and fetch.unsecured >= self._limits.secure_mb << 20 and not fetch.securing:
            self._secure(digest, fetch)
        return True

    def failed(self, digest: str, who: Literal["user", "device", "network", "us"], reason: str) -> None:
        """The source knows that asking again is of no use."""
        if digest in self._fetches:
            self._finish(digest, who, reason)

    def link_up(self) -> None:
        self.online = True
        self._tick()

    def link_down(self) -> None:
        self.online = False
        self._sources.pause()
        for fetch in self._fetches.values():
            fetch.missing.pause()

    def stop(self) -> None:
        for digest in list(self._fetches):
            self._drop(digest)
        if self._timer is not None:
            self._timer.cancel()

    def _held(self, digest: str, done: Done, public: bool) -> None:
        """It is here; perhaps it came for a shard and is not durable."""

        def preserved(result: Exception | None) -> None:
            if result is None:
                done(Outcome(0, held=True))
            else:
                done(Outcome(0, who="device", error=f"blob {digest[:12]} cannot be stored: {result}"))

        if public:
            self._loop.in_thread(lambda: self._blobs.preserve(digest), preserved)
        else:
            self._loop.call_soon(lambda: preserved(None))

    def _prepare(self, digest: str, fetch: _Fetch) -> None:
        """What is on disk from an earlier try counts."""
        if self._fetches.get(digest) is not fetch:
            return
        try:
            if fetch.missing.size is not None:
                fetch.missing.known(fetch.missing.size, self._blobs.begin(digest, fetch.missing.size, self._keep()))
        except (OSError, BlobError) as error:
            self._no_room(digest, error)
            return
        if fetch.missing.complete:
            self._seal(digest, fetch)
        self._tick()

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._fetches:
            return
        if self.online:
            for digest, fetch in list(self._fetches.items()):
                self._ask(digest, fetch)
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _ask(self, digest: str, fetch: _Fetch) -> None:
        now, missing = self._loop.now(), fetch.missing
        if fetch.sealing:
            return
        if self._sources.look(digest, missing.arrived, now):
            missing.pause()
        allowed = self._budget.chunks(now)
        wanted = missing.ask(now) if allowed else None
        if missing.given_up:
            self._finish(digest, "network", f"blob {digest[:12]} does not arrive; is the controller running?")
        elif wanted:
            wanted = first_of(wanted, allowed)
            self._budget.spend(wanted)
            self._sources.ask(digest, missing.size, wanted, now)

    def _secure(self, digest: str, fetch: _Fetch) -> None:
        """A large blob over a slow line takes hours; what came before a power cut is not sent again."""
        fetch.securing, fetch.unsecured = True, 0

        def secured(result: Exception | None) -> None:
            fetch.securing = False
            if result is not None and self._fetches.get(digest) is fetch and not fetch.sealing:
                self._no_room(digest, result)

        self._loop.in_thread(lambda: self._blobs.secure(digest), secured)

    def _seal(self, digest: str, fetch: _Fetch) -> None:
        fetch.sealing = True
        self._loop.call_soon(lambda: self._close(digest, fetch))

    def _close(self, digest: str, fetch: _Fetch) -> None:
        size = fetch.missing.size
        assert size is not None
        if fetch.public:
            seal = partial(self._blobs.seal, digest, size)
            self._loop.in_thread(seal, lambda result: self._sealed(digest, fetch, result))
            return
        result: Exception | None = None
        try:
            self._blobs.adopt(digest, size)
        except (OSError, BlobError) as error:
            result = error
        self._sealed(digest, fetch, result)

    def _sealed(self, digest: str, fetch: _Fetch, result: Exception | None) -> None:
        if self._fetches.get(digest) is not fetch:
            return
        if isinstance(result, BlobError) and fetch.spoilt < _SPOILT:
            _log.warning("%s; fetching it once more", result)
            if not (isinstance(result, WrongBytesError) and self._sources.wrong(digest)):
                fetch.spoilt += 1
            fetch.missing.pause()
            fetch.sealing = False
            self._prepare(digest, fetch)
        elif isinstance(result, BlobError):
            self._finish(digest, "network", str(result))
        elif result is not None:
            self._no_room(digest, result)
        else:
            self._finish(digest, "network", "")

    def _no_room(self, digest: str, error: Exception) -> None:
        """The disk does not take it: leave nothing half done."""
        self._blobs.drop(digest)
        self._finish(digest, "device", f"blob {digest[:12]} cannot be stored: {error}")

    def _finish(self, digest: str, who: Literal["user", "device", "network", "us"], error: str) -> None:
        way = self._sources.way_of(digest)
        fetch = self._drop(digest)
        for done in fetch.waiting:
            done(Outcome(fetch.missing.arrived, who=who, error=error, way=way))

    def _drop(self, digest: str) -> _Fetch:
        self._sources.end(digest)
        return self._fetches.pop(digest)

    def _keep(self) -> set[str]:
        return {*self._pinned(), *self._fetches}


class Batch:
    """Several blobs as one: `done` gets the sum once all are there, or the first error."""

    def __init__(self, fetcher: Fetcher, wanted: list[tuple[str, int | None]], done: Done) -> None:
        self._fetcher = fetcher
        self._left = len(wanted)
        self._done = done
        self._arrived = 0
        self._held = True
        self._way: Literal["mqtt", "http"] = "mqtt"
        for digest, size in wanted:
            fetcher.want(digest, size, self._one)

    def cancel(self) -> None:
        """`done` is not called any more."""
        self._left = 0
        self._fetcher.forget(self._one)

    def _one(self, outcome: Outcome) -> None:
        if not self._left:
            return
        self._arrived += outcome.arrived
        self._held = self._held and outcome.held
        self._left -= 1
        if not outcome.held:
            self._way = outcome.way
        if outcome.error:
            self.cancel()
        if outcome.error or not self._left:
            self._done(Outcome(self._arrived, held=self._held, who=outcome.who, error=outcome.error, way=self._way))
