"""A program of Lepta in its own processes. Imports nothing heavy, so that it shares no memory with what it measures."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.contract import children
from tests.benchmarks import measure

POLL_S = 0.02
PATIENCE_S = 60.0


class ProgramError(RuntimeError):
    """A program did not do what the benchmark needs; the log of the process is in the message."""


class Started(NamedTuple):
    """How long a program took from its start until it was ready."""

    wall_s: float
    cpu_s: float


class Program:
    """One program of Lepta with everything that it starts, and its log."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command that runs another one in its place."""
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*prefix, *children.command(module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=children.environment(),
            )
        self.started = time.monotonic()

    @property
    def pids(self) -> list[int]:
        return measure.tree(self.process.pid)

    def until(self, ready: Callable[[], bool], what: str) -> Started:
        """Wait for `ready`; raises ProgramError with the log if the program ends or takes too long."""
        while not ready():
            if self.process.poll() is not None or time.monotonic() - self.started > PATIENCE_S:
                raise ProgramError(f"{what} did not happen:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(POLL_S)
        return Started(time.monotonic() - self.started, measure.cpu_s(self.pids))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
