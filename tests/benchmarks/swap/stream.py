"""A thousand swaps under a steady stream, a 4 MB and a 40 kB model in turns: failures, waits, memory, descriptors.

A real agent on a real broker; requests come over MQTT from a process of its own. "During" is from the fork of the
candidate to the exit of the old worker; before each swap lies a control window of the same length.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import psutil

from agent.contract import children
from agent.contract.manifest import Watch
from agent.contract.messages import DesiredModel
from tests.benchmarks import measure
from tests.benchmarks.measure import ChildWatch, Sample, Span
from tests.benchmarks.results import Figure, at_most
from tests.benchmarks.swap.pair import LARGE, SMALL, network
from tests.builders import golden_for
from tests.fake_controller import AgentProcess, FakeBroker, FakeController, until

MODEL, DEVICE = "digits", "pi"
SWAPS, QUICK_SWAPS = 1000, 8
WARM_UP = 20
"""Swaps after which memory and descriptors are what they grow from."""
RATE = 200.0
SWITCH_S = 0.0001
WATCH = Watch(drift=1)
"""The two answer the same rows differently; that is no fault here."""
CONFIG = "[limits]\nwatch_s = 0.1\nload_idle = 1.0\n"


class Resources(NamedTuple):
    """Of all processes of the agent, while one worker serves."""

    memory_mb: float
    descriptors: int


class Recorded(NamedTuple):
    samples: list[Sample]
    swaps: list[Span]
    asked: list[float]
    before: Resources
    after: Resources


def figures(folder: Path, quick: bool) -> list[Figure]:
    return _evaluate(record(folder, QUICK_SWAPS if quick else SWAPS, RATE))


def record(folder: Path, count: int, rate: float) -> Recorded:
    """`count` swaps under `rate` requests a second."""
    sys.setswitchinterval(SWITCH_S)
    folder.mkdir(exist_ok=True)
    broker = FakeBroker(folder)
    controller = FakeController(broker.broker, hears=("hello", "reported", "need"))
    try:
        with AgentProcess(folder, controller, DEVICE, CONFIG) as agent:
            return _Swaps(controller, agent, rate).record(count)
    finally:
        controller.close()
        broker.stop()


class _Swaps:
    """Brings one model after the other to one agent."""

    def __init__(self, controller: FakeController, agent: AgentProcess, rate: float) -> None:
        self._controller, self._agent, self._rate = controller, agent, rate
        self._contents = [network(hidden) for hidden in (SMALL, LARGE)]
        self._golden = [golden_for(content) for content in self._contents]
        self._version = 0
        self._asked: list[float] = []

    def record(self, count: int) -> Recorded:
        first = self._next()
        self._bring(first)
        zygote = self._agent.process.children()[0].pid
        with _Stream(self._controller, first, self._rate) as stream, ChildWatch(zygote) as watch:
            before = self._resources()
            for number in range(1, count + 1):
                spans = self._after(watch, number - 1)
                self._wait_quietly(spans)
                self._asked.append(time.monotonic())
                self._bring(self._next())
                if number == min(WARM_UP, count // 2):
                    self._after(watch, number)
                    before = self._resources()
            spans = self._after(watch, count)
            after = self._resources()
            samples = stream.end()
        return Recorded(samples, spans, self._asked, before, after)

    def _next(self) -> DesiredModel:
        turn = self._version % 2
        self._version += 1
        return self._controller.release(
            self._contents[turn], version=self._version, golden=self._golden[turn], watch=WATCH
        )

    def _bring(self, wanted: DesiredModel) -> None:
        self._controller.forget()
        self._controller.desire(DEVICE, wanted)
        record = self._controller.swap(wanted)
        assert record.outcome == "committed", record

    def _after(self, watch: ChildWatch, count: int) -> list[Span]:
        """The swaps so far, once the old worker of the last one has exited."""
        until(lambda: len(measure.swap_spans(watch.lives())) >= count, "the old worker exits")
        return measure.swap_spans(watch.lives())

    def _wait_quietly(self, spans: Sequence[Span]) -> None:
        """Long enough for a control window as long as the next swap can be."""
        longest = max((span.length for span in spans[-20:]), default=0.3)
        ended = spans[-1].end if spans else time.monotonic()
        time.sleep(max(0.0, ended + 1.5 * longest + 0.15 - time.monotonic()))

    def _resources(self) -> Resources:
        """After a moment: what a swap took is given back by then."""
        time.sleep(0.5)
        tree = [self._agent.process, *self._agent.process.children(recursive=True)]
        return Resources(measure.pss_mb([process.pid for process in tree]), sum(_descriptors(p) for p in tree))


class _Stream:
    """The process that asks."""

    def __init__(self, controller: FakeController, first: DesiredModel, rate: float) -> None:
        arguments = ["-m", "tests.benchmarks.swap.asker", DEVICE, MODEL, first.artifact, str(rate)]
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=children.environment({"PYTHONSAFEPATH": ""}),
        )
        self._say(msgspec.json.encode(controller.broker).decode() + "\n")
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> list[Sample]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None
        return [Sample(*sample) for sample in json.loads(self._line())]

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process that asks ended with status {self._process.wait()}"
        return line


def _descriptors(process: psutil.Process) -> int:
    return int(process.num_fds())


def _evaluate(recorded: Recorded) -> list[Figure]:
    windows = measure.controls(recorded.swaps, recorded.asked)
    during, control = (measure.in_flight(recorded.samples, spans) for spans in (recorded.swaps, windows))
    failed = sum(not sample.ok for sample in recorded.samples)
    p99, calm = measure.milliseconds(during, 0.99), measure.milliseconds(control, 0.99)
    longest, longest_calm = (max(s.latency for s in samples) * 1000 for samples in (during, control))
    holds = p99 <= max(1.2 * calm, calm + 1)
    count = f"p99 {p99:.2f} ms during ({len(during)} requests), {calm:.2f} ms in control windows ({len(control)})"
    lengths = [swap.length * 1000 for swap in recorded.swaps]
    grown = recorded.after.memory_mb - recorded.before.memory_mb
    return [
        Figure("swaps", len(recorded.swaps), "", note="40 kB and 4 MB in turns"),
        Figure("failed", failed, "", "0", failed == 0, f"of {len(recorded.samples)} at {RATE:g} a second", always=True),
        Figure("p99_ratio", p99 / calm, "", "<= 1.2, or + 1 ms", holds, count),
        Figure("p99_added_ms", p99 - calm, "ms"),
        at_most(
            "longest_added_wait_ms",
            longest - longest_calm,
            10,
            "ms",
            f"longest wait {longest:.1f} ms during, {longest_calm:.1f} ms in control windows",
        ),
        at_most("memory_growth_mb", grown, 2, "MB", f"{recorded.after.memory_mb:.1f} MB after; all processes, PSS"),
        at_most("fd_growth", recorded.after.descriptors - recorded.before.descriptors, 0),
        Figure(
            "swap_length_ms", measure.percentile(lengths, 0.5), "ms", note="fork of the candidate to exit of the old"
        ),
    ]
