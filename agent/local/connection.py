"""One caller's connection: requests one after the other, each answered before the next is looked at."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from agent import frames
from agent.contract.http1 import MAX_HEAD, Parser, Refused, Request, whole
from agent.local import replies
from agent.loop import Loop

_READ = 1 << 16
_SHORT = 1 << 12


class Handler(Protocol):
    """Who answers."""

    def handle(self, connection: Connection, request: Request) -> None:
        """Call `reply`, or `expect` and later what that returned."""

    def closed(self, connection: Connection) -> None: ...


class _Waiting:
    """The answer that is to come; another one is too late."""

    __slots__ = ("late", "until")

    def __init__(self, until: float, late: Callable[[], None]) -> None:
        self.until = until
        self.late = late


class Connection:
    def __init__(self, loop: Loop, sock: socket.socket, handler: Handler, most_body: int) -> None:
        self._loop = loop
        self._sock = sock
        self._handler = handler
        self._parser = Parser(most_body)
        self._most_body = most_body
        self._out = bytearray()
        self._waiting: _Waiting | None = None
        self._keep = True
        self._advancing = self._continued = self._over = False
        self._since = loop.now()
        loop.watch(sock, self._readable)

    def reply(self, response: bytes, *, keep: bool | None = None) -> None:
        """The answer to the request at hand, at once."""
        if keep is not None:
            self._keep = keep
        self._send([response])

    def expect(self, until: float, late: Callable[[], None]) -> Callable[[frames.Computed], bool]:
        """The answer comes with the call of what is returned, which tells whether somebody still waited; nobody does
        after `until`: then `late` is called."""
        waiting = self._waiting = _Waiting(until, late)

        def answered(computed: frames.Computed) -> bool:
            if self._waiting is not waiting:
                return False
            self._waiting = None
            self._send(replies.answer(computed, keep=self._keep))
            self._advance()
            return True

        return answered

    def look(self, now: float, patience: float, idle: float) -> None:
        """Time has passed: has the caller, or the model, taken too long?"""
        if self._waiting is not None:
            if now > self._waiting.until:
                late, self._waiting = self._waiting.late, None
                late()
                self._send([replies.error(503, "no answer in time; the device is busy", keep=self._keep)])
                self._advance()
        elif now - self._since > (patience if self._out or not self._keep else idle):
            self.close()
        elif now - self._since > patience and self._parser.begun:
            self._keep = False
            self._send([replies.error(408, "the request did not come whole", keep=False)])

    def close(self) -> None:
        if self._over:
            return
        self._over = True
        self._waiting = None
        self._loop.forget(self._sock)
        self._sock.close()
        self._handler.closed(self)

    # -- reading

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._since = self._loop.now()
        if not self._keep:
            return  # Its answer is on the way out, and it was the last.
        free = self._waiting is None and not self._out
        request = whole(data, self._most_body) if free and not self._parser.begun else None
        if request is not None:
            self._take(request)
            return
        self._parser.feed(data)
        if free:
            self._advance()
        elif len(self._parser) > self._most_body + MAX_HEAD:
            self.close()

    def _advance(self) -> None:
        """Handle what is whole, until one has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        while self._parser.begun and self._waiting is None and self._keep and not self._out and not self._over:
            request = self._next()
            if request is None:
                break
            self._take(request)
        self._advancing = False

    def _take(self, request: Request) -> None:
        self._keep, self._continued = request.keep, False
        self._handler.handle(self, request)

    def _next(self) -> Request | None:
        try:
            request = self._parser.take()
        except Refused as refused:
            self._keep = False
            self._send([replies.error(refused.status, str(refused), keep=False)])
            return None
        if request is None and self._parser.expects and not self._continued:
            self._continued = True
            self._send([replies.CONTINUE])
        return request

    # -- writing

    def _send(self, pieces: list[bytes]) -> None:
        if self._over:
            return
        if len(pieces) > 1 and len(pieces[-1]) <= _SHORT:
            pieces = [b"".join(pieces)]  # Cheaper than to have the kernel gather them.
        try:
            sent = 0 if self._out else self._sock.send(pieces[0]) if len(pieces) == 1 else self._sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        for piece in pieces:
            if sent < len(piece):
                self._out += memoryview(piece)[sent:]
            sent = max(0, sent - len(piece))
        if self._out:
            self._loop.watch(self._sock, self._readable, self._writable)
        elif not self._keep:
            self._finish()

    def _writable(self) -> None:
        if self._over:
            return
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._since = self._loop.now()
        if self._out:
            return
        self._loop.watch(self._sock, self._readable)
        if self._keep:
            self._advance()
        else:
            self._finish()

    def _finish(self) -> None:
        """The last answer is sent. Closing with bytes unread would reset the connection under it: the caller closes."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
