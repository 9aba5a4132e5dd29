"""The demo's child processes: started apart from the terminal, stopped together, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil

from agent.contract import children
from controller.errors import Internal

STOP_S = 10.0
POLL_S = 0.05
_TAIL = 12


class Child:
    """A program of ours in a session of its own, so that Ctrl-C reaches the demo only."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], log: Path, extra: Mapping[str, str] | None = None
    ) -> None:
        """`extra`: variables of its environment."""
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*children.command(module), *arguments],
                env=children.environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._tree: list[psutil.Process] = []
        """As it was when it was asked to stop: once the head is gone, nobody knows whose children the others are."""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raise Internal with the end of the log if it ended."""
        if not self.alive:
            raise Internal(f"{self.name} ended with status {self._process.returncode}: {_last_words(self.log)}")

    def kill(self) -> None:
        """End its whole tree at once, as a power cut would: the head first, so that it mends nothing."""
        tree = family(self.pid)
        for process in tree:
            _signal(process, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(tree, timeout=STOP_S)

    def ask_to_stop(self) -> None:
        self._tree = family(self.pid)
        if self.alive:
            self._process.send_signal(signal.SIGTERM)

    def finish(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic), then end what is left by force."""
        tree = [*self._tree, *family(self.pid)]
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
        left = [process for process in tree if process.is_running()]
        _gone, left = psutil.wait_procs(left, timeout=1.0)
        for process in left:
            _signal(process, signal.SIGKILL)


def stop_all(programs: Sequence[Child]) -> None:
    """End programs in the given order of asking; returns when none is left. Takes at most about STOP_S."""
    deadline = time.monotonic() + STOP_S
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        program.finish(deadline)


def wait_until(holds: Callable[[], bool], what: str, programs: Sequence[Child], seconds: float) -> None:
    """Poll until `holds`; raises Internal if one of `programs` ends, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            logs = ", ".join(str(program.log) for program in programs)
            raise Internal(f"{what} took longer than {seconds:.0f} s", f"see {logs}")
        time.sleep(POLL_S)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, the head first; empty if it is gone."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass(frozen=True)
class Rate:
    """Work done by bare processes."""

    rows: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.rows / self.seconds


class Bare:
    """A `controller.demo.reference` process: the same artifact without Lepta around it. Use as a context manager."""

    def __init__(self, told: dict[str, Any], log: Path) -> None:
        """`told`: the first line for `controller.demo.reference`; its noise goes to `log`."""
        self._log = log
        with log.open("ab") as noise:
            self._process = subprocess.Popen(
                children.command("controller.demo.reference"),
                env=children.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                start_new_session=True,
            )
        try:
            self.runtime = str(self.ask(told)["runtime"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: dict[str, Any]) -> None:
        try:
            _pipe(self._process.stdin).write(msgspec.json.encode(request) + b"\n")
            _pipe(self._process.stdin).flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.send(request)
        return self.answer()

    def _died(self) -> Internal:
        return Internal(f"the bare process ended with status {self._process.wait()}: {_last_words(self._log)}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def rate_of(processes: Sequence[Bare], seconds: float) -> Rate:
    """What `processes` do together when all compute at once."""
    for process in processes:
        process.send({"do": "rate", "seconds": seconds})
    answers = [process.answer() for process in processes]
    return Rate(sum(a["rows"] for a in answers), max(a["seconds"] for a in answers))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _last_words(log: Path) -> str:
    return "\n  ".join(log.read_text(errors="replace").splitlines()[-_TAIL:])


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
