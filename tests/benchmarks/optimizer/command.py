"""`lepta` as somebody types it: how long it takes and how much memory its processes have at most."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.contract import children
from tests.benchmarks import measure

EVERY_S = 0.1
"""Between two looks at the memory of all processes."""


class CommandError(RuntimeError):
    """The command failed; what it printed is in the message."""


class Taken(NamedTuple):
    """Of the command and all its children; `peak_mb` is their proportional set size together."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def lepta(arguments: Sequence[str], log: Path, patience_s: float) -> Taken:
    """Run `lepta ARGUMENTS`; raises CommandError unless it ends well in `patience_s`."""
    started, before = time.monotonic(), measure.cpu_s([os.getpid()])
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*children.command("controller.cli"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=children.environment(),
        )
    try:
        with measure.Peak(lambda: measure.pss_mb(measure.tree(process.pid)), EVERY_S) as peak:
            status = process.wait(patience_s)
            wall_s = time.monotonic() - started
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"lepta {arguments[0]} took more than {patience_s:.0f} s:\n{_end(log)}") from error
    finally:
        process.kill()
        process.wait()
    if status != 0:
        raise CommandError(f"lepta {arguments[0]} ended with status {status}:\n{_end(log)}")
    return Taken(wall_s, measure.cpu_s([os.getpid()]) - before, peak.highest)


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
