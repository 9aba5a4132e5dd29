"""The optimizer process: JSON lines on stdin and stdout, one request at a time; noise goes to stderr.

-> {"id": "1", "do": "optimize", "run": "run.json", "out": "folder"}
-> {"id": "2", "do": "example", "name": "digits", "out": "folder", "options": {...}}
-> {"do": "warm"}   -> {"id": "1", "do": "cancel"}
<- {"id", "event": "progress", "step", "profile", "fraction", "detail", "left_s"}, then
   {"id", "event": "done", "report"}
   or {"id", "event": "failed", "who": "user" | "us", "error"}

It ends, with every child, when stdin does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from optimizer.errors import OptimizerError, RefusedError
from optimizer.examples import make_example
from optimizer.lines import LineReader, Message, write
from optimizer.pipeline import optimize
from optimizer.runs import read_run
from optimizer.steps import ForkedSteps

_PROTOCOL_FD = 1
# Before that share of a run is done, the time left is not told.
_TOLD_FROM = 0.03


def main() -> int:
    # Ctrl-C in a terminal reaches every process; our parent decides what it means and closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.dup(_PROTOCOL_FD)
    os.dup2(sys.stderr.fileno(), _PROTOCOL_FD)
    Server(sys.stdin.fileno(), out).serve()
    return 0


class Server:
    """Answers requests from one pipe in their order; a cancellation overtakes."""

    def __init__(self, requests: int, out: int) -> None:
        self._requests = LineReader(requests)
        self._out = out
        self._waiting: list[Message] = []
        self._current, self._began = "", 0.0
        self._steps = ForkedSteps(self._requests, self._while_busy)

    def serve(self) -> None:
        try:
            while not self._requests.closed:
                self._waiting += self._requests.read()
                while self._waiting and not self._requests.closed:
                    self._answer(self._waiting.pop(0))
        except BrokenPipeError:
            # Nobody listens any more.
            return
        finally:
            self._steps.close()

    def _while_busy(self, message: Message) -> bool:
        """What came while a step runs; True if that is to be cancelled."""
        if message.get("do") != "cancel":
            self._waiting.append(message)
            return False
        if message.get("id") == self._current:
            return True
        self._cancel_waiting(message)
        return False

    def _cancel_waiting(self, message: Message) -> None:
        kept = [request for request in self._waiting if request.get("id") != message.get("id")]
        if len(kept) < len(self._waiting):
            self._waiting = kept
            self._send(str(message.get("id")), {"event": "failed", "who": "user", "error": "cancelled"})

    def _answer(self, request: Message) -> None:
        if request.get("do") == "warm":
            self._steps.warm("tensorflow")
            return
        if request.get("do") == "cancel":
            self._cancel_waiting(request)
            return
        self._current, self._began = str(request.get("id", "")), time.monotonic()
        try:
            answer: Message = {"event": "done", "report": self._do(request)}
        except OptimizerError as error:
            answer = {"event": "failed", "who": error.who, "error": str(error)}
        except OSError as error:
            answer = {"event": "failed", "who": "us", "error": f"{error.filename or 'disk'}: {error.strerror or error}"}
        self._send(self._current, answer)
        self._current = ""

    def _do(self, request: Message) -> dict[str, Any]:
        match request:
            case {"do": "optimize", "run": str(run), "out": str(out)}:
                return optimize(read_run(Path(run)), Path(out), self._steps, self._tell)
            case {"do": "example", "name": str(name), "out": str(out)}:
                return make_example(name, Path(out), request.get("options") or {}, self._steps, self._tell)
            case {"malformed": str(why)}:
                raise RefusedError(f"a request that cannot be read: {why}")
        raise RefusedError(
            f"request {request.get('do')!r} is not known, or lacks a field; known are optimize, example, warm, cancel"
        )

    def _tell(self, step: str, profile: str, fraction: float, detail: str) -> None:
        said = {"event": "progress", "step": step, "profile": profile, "fraction": fraction, "detail": detail}
        self._send(self._current, {**said, "left_s": self._left(fraction)})

    def _left(self, fraction: float) -> float | None:
        """Seconds until the end at the pace so far; None while that would be a guess."""
        seconds = time.monotonic() - self._began
        return None if fraction < _TOLD_FROM else round(seconds / fraction * (1 - fraction), 1)

    def _send(self, request: str, message: Message) -> None:
        write(self._out, {"id": request, **message})


if __name__ == "__main__":
    sys.exit(main())
