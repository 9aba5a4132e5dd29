"""Chunks over the broker."""

from __future__ import annotations

from collections.abc import Callable

from agent.chunks import Ranges
from agent.contract import topics
from agent.contract.messages import Message, Need
from agent.link import Connection


class MqttSource:
    """Subscribes a blob's chunks and says which are missing."""

    def __init__(
        self, link: Connection, agent: str, encode: Callable[[Message], bytes], packings: tuple[str, ...] = ()
    ) -> None:
        """`packings`: the chunks may come so."""
        self._link = link
        self._agent = agent
        self._topic = topics.agent(agent, "need")
        self._encode = encode
        self._packings = packings

    def begin(self, digest: str) -> None:
        for topic in self._topics(digest):
            self._link.subscribe(topic)

    def ask(self, digest: str, size: int | None, ranges: Ranges) -> None:
        need = Need(digest=digest, ranges=ranges, packings=self._packings)
        self._link.publish(self._topic, self._encode(need), qos=1)

    def end(self, digest: str) -> None:
        for topic in self._topics(digest):
            self._link.unsubscribe(topic)

    def _topics(self, digest: str) -> tuple[str, str]:
        """Who sends a blob knows whether it is for everybody or for this agent only."""
        return topics.blob(digest, "+"), topics.agent_blob(self._agent, digest, "+")
