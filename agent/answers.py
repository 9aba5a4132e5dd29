"""Answers on their way to the controller: those of one turn leave in one message, where it takes that."""

from __future__ import annotations

from collections.abc import Callable

from agent import replies
from agent.contract.infer import together
from agent.contract.messages import MAX_INLINE, Answer, Stamper
from agent.loop import Loop


class Answers:
    def __init__(self, loop: Loop, stamper: Stamper, publish: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._stamper = stamper
        self._publish = publish
        self._waiting: list[Answer] = []

    def add(self, answer: Answer, *, alone: bool) -> None:
        """`alone`: the controller takes one in a message."""
        if alone:
            self._publish(replies.encode(answer, self._stamper))
            return
        if not self._waiting:
            self._loop.defer(self._leave)
        self._waiting.append(answer)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message in together(waiting, MAX_INLINE):
            self._publish(replies.encode(message, self._stamper))
