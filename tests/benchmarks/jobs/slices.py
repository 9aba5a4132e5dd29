"""A processor of its own for each agent, and a process that takes half of one.

Where there are cores enough, an agent is pinned to one. Elsewhere it gets a control group with a fixed part of a core;
a process that turns without end in the same group gets half of that, by the scheduler's own fairness.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 10_000
_FOREVER = "while True: pass"


class SliceError(RuntimeError):
    """This machine has neither cores enough nor control groups that may be used."""


class Slices:
    """Use as a context manager: `names` get equal parts. `how` says which, for people."""

    def __init__(self, names: Sequence[str], share: float) -> None:
        """`share` of a core for each, where there are too few for one each and the rest of the work."""
        self._names = list(names)
        self._groups: dict[str, Path] = {}
        self._cores = sorted(os.sched_getaffinity(0))
        self._hogs: list[subprocess.Popen[bytes]] = []
        if len(self._cores) > len(names):
            self.how = "each agent pinned to a core"
        else:
            self.how = f"each agent in a control group with {share:.0%} of a core"
            self._groups = _groups(names, share)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hog in self._hogs:
            hog.kill()
            hog.wait()
        for group in self._groups.values():
            _remove(group)

    def take(self, name: str, pids: Iterable[int]) -> None:
        """These processes, and what they start from now on, have the slice for themselves."""
        for pid in pids:
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                self._put(name, pid)

    def hog(self, name: str) -> Callable[[], None]:
        """Start a process that takes half of the slice; returns what ends it."""
        process = subprocess.Popen([sys.executable, "-c", _FOREVER], stdin=subprocess.DEVNULL)
        self._hogs.append(process)
        self._put(name, process.pid)

        def end() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait()

        return end

    def _put(self, name: str, pid: int) -> None:
        if self._groups:
            (self._groups[name] / "cgroup.procs").write_text(str(pid))
        else:
            core = self._cores[1 + self._names.index(name)]
            for thread in psutil.Process(pid).threads():
                os.sched_setaffinity(thread.id, {core})


def _groups(names: Sequence[str], share: float) -> dict[str, Path]:
    """Raises SliceError."""
    quota = int(share * _PERIOD_US)
    made: dict[str, Path] = {}
    old = _ROOT / "cpu"
    parent = old if old.is_dir() else _ROOT
    limits = {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota} if parent == old else {
        "cpu.max": f"{quota} {_PERIOD_US}"
    }  # fmt: skip
    try:
        if parent == _ROOT:
            (_ROOT / "cgroup.subtree_control").write_text("+cpu")
        for name in names:
            made[name] = parent / f"lepta-{name}-{secrets.token_hex(4)}"
            made[name].mkdir()
            for limit, value in limits.items():
                (made[name] / limit).write_text(str(value))
    except OSError as error:
        for group in made.values():
            _remove(group)
        raise SliceError(f"{len(names)} agents need {len(names) + 1} cores, or root and control groups") from error
    return made


def _remove(group: Path) -> None:
    for _ in range(100):  # Busy until its last process is gone.
        with suppress(FileNotFoundError):
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.05)
                continue
        return
