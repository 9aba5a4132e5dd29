"""Chunks over the broker."""

from __future__ import annotations

from collections.abc import Callable

from agent.chunks import Ranges
from agent.contract import topics
from agent.contract.messages import Message, Need
from agent.link import Connection


class MqttSource:
    """Says which chunks of a blob are missing, and subscribes to those that are for everybody. Its own topic, on which
    inputs of requests and shards come, an agent hears all the time: there are many of these, and each comes once."""

    def __init__(
        self, link: Connection, agent: str, encode: Callable[[Message], bytes], packings: tuple[str, ...] = ()
    ) -> None:
        """`packings`: the chunks may come so."""
        self._link = link
        self._topic = topics.agent(agent, "need")
        self._encode = encode
        self._packings = packings
        self._public: set[str] = set()

    def begin(self, digest: str, public: bool) -> None:
        if public:
            self._public.add(digest)
            self._link.subscribe(topics.blob(digest, "+"))

    def ask(self, digest: str, size: int | None, ranges: Ranges) -> None:
        private = digest not in self._public
        need = Need(digest=digest, ranges=ranges, packings=self._packings, private=private)
        self._link.publish(self._topic, self._encode(need), qos=1)

    def end(self, digest: str) -> None:
        if digest in self._public:
            self._public.remove(digest)
            self._link.unsubscribe(topics.blob(digest, "+"))
