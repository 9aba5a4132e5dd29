"""Runs steps in children of zygotes, from a process that imports neither TensorFlow nor numpy."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agent.contract.children import command, environment
from optimizer.errors import CancelledError, StepError
from optimizer.lines import LineReader, Message, write
from optimizer.passes import ENVIRONMENT, PASSES, Inputs, Kind, Progress
from optimizer.settings import LIMITS


class Finished(NamedTuple):
    """What a step returned, how long it took and its largest resident set."""

    result: dict[str, Any]
    wall_s: float
    peak_memory_mb: float


class Work(NamedTuple):
    """One pass to do: its name, its inputs by role, its settings, the folder it fills, and what it may take."""

    name: str
    inputs: Inputs
    settings: dict[str, Any]
    out: Path
    seconds: float = LIMITS.step_seconds
    memory_mb: int = LIMITS.step_memory_mb


class Steps(Protocol):
    """Runs one step after the other."""

    def warm(self, *kinds: Kind) -> None:
        """Start what steps of these kinds are forked from; do not wait for it."""

    def run(self, work: Work, progress: Progress) -> Finished:
        """Raise StepError if it failed, CancelledError if it was cancelled."""


class ForkedSteps:
    """The real port: a zygote of each kind, started when first needed.

    `requests` is the pipe of our own parent: while a step runs, `on_request` gets what comes there and returns
    whether the step is to be cancelled; its end cancels too. What libraries print goes to the descriptor `noise`, or
    where our own noise goes.
    """

    def __init__(self, requests: LineReader, on_request: Callable[[Message], bool], noise: int | None = None) -> None:
        self._requests, self._on_request, self._noise = requests, on_request, noise
        self._zygotes: dict[Kind, _Zygote] = {}

    def warm(self, *kinds: Kind) -> None:
        for kind in kinds:
            self._zygote(kind)

    def run(self, work: Work, progress: Progress) -> Finished:
        kind = PASSES[work.name].kind
        zygote = self._zygote(kind)
        progress(0.0, "" if zygote.ready else f"starting {kind}")
        inputs = {role: str(path) for role, path in work.inputs.items()}
        limits = {"seconds": work.seconds, "memory_mb": work.memory_mb}
        zygote.send({"step": work.name, "inputs": inputs, "settings": work.settings, "out": str(work.out), **limits})
        outcome = _Outcome(work.name, progress)
        try:
            self._converse(zygote, outcome)
        except BaseException:
            self._zygotes.pop(kind).stop()
            raise
        return outcome.finished()

    def close(self) -> None:
        while self._zygotes:
            self._zygotes.popitem()[1].stop()

    def _zygote(self, kind: Kind) -> _Zygote:
        if kind in self._zygotes and self._zygotes[kind].process.poll() is not None:
            self._zygotes.pop(kind).stop()
        if kind not in self._zygotes:
            self._zygotes[kind] = _Zygote(kind, self._noise)
        return self._zygotes[kind]

    def _converse(self, zygote: _Zygote, outcome: _Outcome) -> None:
        """Listen to the zygote and to our parent until the step has ended."""
        heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(zygote.answers, selectors.EVENT_READ)
            if not self._requests.closed:
                selector.register(self._requests, selectors.EVENT_READ)
            while not outcome.ended:
                ready = [key.fileobj for key, _ in selector.select(LIMITS.heartbeat_s)]
                if zygote.answers in ready:
                    heard = time.monotonic()
                    self._hear_zygote(zygote, outcome)
                elif time.monotonic() - heard > LIMITS.silence_seconds:
                    raise StepError(f"step {outcome.step}: {zygote.kind} was silent for {LIMITS.silence_seconds:g} s")
                elif not ready:
                    outcome.take({"alive": True})
                if self._requests in ready:
                    self._hear_parent(zygote, selector)

    def _hear_parent(self, zygote: _Zygote, selector: selectors.BaseSelector) -> None:
        cancelled = [self._on_request(message) for message in self._requests.read()]
        if self._requests.closed:
            selector.unregister(self._requests)
        if any(cancelled) or self._requests.closed:
            if not zygote.ready:
                raise CancelledError("cancelled")
            zygote.send({"cancel": True})

    def _hear_zygote(self, zygote: _Zygote, outcome: _Outcome) -> None:
        for message in zygote.answers.read():
            if "ready" in message:
                zygote.ready = True
            else:
                outcome.take(message)
        if zygote.answers.closed and not outcome.ended:
            raise StepError(
                outcome.error or f"step {outcome.step}: {zygote.kind} could not be started; its log says why"
            )


class _Outcome:
    """Collects what a zygote says about one step."""

    def __init__(self, step: str, progress: Progress) -> None:
        self.step = step
        self.ended = False
        self.error: str | None = None
        self._progress = progress
        self._last: tuple[float, str] = (0.0, "")
        self._end: Message = {}
        self._result: dict[str, Any] | None = None
        self._failure: Message = {}

    def take(self, message: Message) -> None:
        if "progress" in message:
            self._last = (message["progress"], message["detail"])
            self._progress(*self._last)
        elif "alive" in message:
            self._progress(*self._last)
        elif "result" in message:
            self._result = message["result"]
        if "error" in message:
            self._failure, self.error = message, message["error"]
        if "ended" in message:
            self._end, self.ended = message, True

    def finished(self) -> Finished:
        if self._failure.get("cancelled"):
            raise CancelledError("cancelled")
        if self._failure:
            raise StepError(self._failure["error"], self._failure["who"])
        if self._result is None:
            raise StepError(f"step {self.step} ended without a result")
        return Finished(self._result, self._end["wall_s"], self._end["peak_memory_mb"])


class _Zygote:
    def __init__(self, kind: Kind, noise: int | None) -> None:
        self.kind = kind
        self.ready = False
        # TensorFlow leaves generated files behind in the folder for temporary files.
        self._scratch = tempfile.TemporaryDirectory(prefix="lepta-optimizer-", ignore_cleanup_errors=True)
        quiet = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "LEPTA_ZYGOTE": kind,
            "TMPDIR": self._scratch.name,
            **ENVIRONMENT.get(kind, {}),
        }
        self.process = subprocess.Popen(
            command("optimizer.zygote"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=environment(quiet),
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise StepError("no pipes to the zygote")
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout
        self.answers = LineReader(self._stdout.fileno())

    def send(self, message: Message) -> None:
        try:
            write(self._stdin.fileno(), message)
        except BrokenPipeError:
            # It died; the end of its answers will say so.
            return

    def stop(self) -> None:
        """End of stdin ends it and its child; one that still imports, or takes too long, is killed with its child."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self.process.wait(5 if self.ready else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stdout.close()
        self._scratch.cleanup()
