"""One selector for sockets, pipes and timers. Several supervisors can share it; nothing here is global."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Callback = Callable[[], None]
_Wish = tuple[Callback | None, Callback | None]
"""On data to read, and on room to write."""
_NOBODYS: _Wish = (None, None)


class Timer:
    """A call that lies ahead; `cancel` makes it never happen."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback | None) -> None:
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Calls back when sockets are ready, when timers are due, and when work given to a thread is done.

    All callbacks run on the thread that calls `run_once`. An exception in a callback ends that call: it is a bug.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = selectors.DefaultSelector()
        self._wishes: dict[int, _Wish] = {}
        """By descriptor, what the selector knows too: this one is asked for every event."""
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._returned: deque[Callback] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.watch(self._wake_in, self._woken)

    def watch(self, sock: socket.socket, on_read: Callback, on_write: Callback | None = None) -> None:
        """Call `on_read` while `sock` has data and `on_write`, if given, while it takes some. Replaces old wishes."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if on_write else 0)
        data = (on_read, on_write)
        try:
            key = self._selector.modify(sock, events, data)
        except KeyError:
            key = self._selector.register(sock, events, data)
        self._wishes[key.fd] = data

    def forget(self, sock: socket.socket) -> None:
        """Stop watching; also right for a socket that was closed or never watched."""
        try:
            del self._wishes[self._selector.unregister(sock).fd]
        except (KeyError, ValueError):
            return

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call once, `delay` seconds from now or a little later."""
        timer = Timer(self.now() + delay, callback)
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call on the next turn. The one method that other threads may use."""
        self._returned.append(callback)
        try:
            self._wake_out.send(b"\0")
        except (BlockingIOError, OSError):
            return  # Full: the loop wakes anyway. Closed: nobody is left to call.

    def defer(self, callback: Callback) -> None:
        """Call at the end of this turn. Only for callbacks of the loop itself: nobody is woken."""
        self._returned.append(callback)

    def in_thread(self, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Run slow `work` (disk, network) on a short-lived thread; `done` gets its value or error on the loop."""

        def run() -> None:
            result: T | Exception
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed over, not swallowed
                result = error
            self.call_soon(lambda: done(result))

        threading.Thread(target=run, daemon=True, name="lepta-slow").start()

    def run_once(self, longest: float = 1.0) -> None:
        """Wait at most `longest` seconds for something to happen and call back for all that did."""
        for key, mask in self._selector.select(self._wait(longest)):
            on_read, on_write = key.data
            if mask & selectors.EVENT_WRITE and on_write is not None:
                on_write()
            # Is it still the same wish? An earlier callback of this turn may have closed or replaced it.
            if mask & selectors.EVENT_READ and self._wishes.get(key.fd, _NOBODYS)[0] == on_read:
                on_read()
        while self._returned:
            self._returned.popleft()()
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def close(self) -> None:
        self.forget(self._wake_in)
        self._wake_in.close()
        self._wake_out.close()
        self._selector.close()

    def _wait(self, longest: float) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._returned:
            return 0.0
        if self._timers:
            return max(0.0, min(longest, self._timers[0][0] - self.now()))
        return longest

    def _woken(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            return
