"""Answers on their way to the controller: those of one turn leave in one message, where it takes that."""

from __future__ import annotations

from agent import replies
from agent.contract.infer import MOST_TOGETHER, together
from agent.contract.messages import MAX_INLINE, Answer, Stamper
from agent.link import Connection
from agent.loop import Loop


class Answers:
    most = MOST_TOGETHER
    """Requests that this device takes in one message."""

    def __init__(self, loop: Loop, link: Connection, topic: str, stamper: Stamper) -> None:
        self._loop = loop
        self._link = link
        self._topic = topic
        self._stamper = stamper
        self._waiting: list[Answer] = []

    def add(self, answer: Answer, *, alone: bool) -> None:
        """`alone`: the controller takes one in a message."""
        if alone:
            self._publish(answer)
            return
        if not self._waiting:
            self._loop.defer(self._leave)
        self._waiting.append(answer)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message in together(waiting, MAX_INLINE):
            self._publish(message)

    def _publish(self, answer: Answer) -> None:
        self._link.publish(self._topic, replies.encode(answer, self._stamper), qos=0)
