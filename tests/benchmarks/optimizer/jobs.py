"""Runs every network by every seed, as many at a time as there are cores, each on one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from agent.contract import children
from tests.benchmarks.optimizer.outcome import Outcome

ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


class JobError(RuntimeError):
    """A network could not be trained or converted; the log of its process is in the message."""


def outcomes(folder: Path, jobs: Sequence[tuple[str, int]], quick: bool) -> list[Outcome]:
    """In the order of `jobs` (kind, seed); their files lie in `folder`. Give the long ones first."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(lambda job: _one(folder, job[0], job[1], quick), jobs))


def _one(folder: Path, kind: str, seed: int, quick: bool) -> Outcome:
    module = "tests.benchmarks.optimizer.seed"
    command = [sys.executable, "-m", module, kind, str(seed), str(folder), *(["--quick"] if quick else [])]
    ended = subprocess.run(
        command,
        env=children.environment({"PYTHONSAFEPATH": "", **ONE_THREAD}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise JobError(f"{kind} by seed {seed} ended with status {ended.returncode}:\n{ended.stderr[-3000:]}")
    said = [line for line in ended.stderr.splitlines() if line.startswith(f"{kind} seed {seed}: ")]
    print("\n".join(said), file=sys.stderr, flush=True)
    return msgspec.json.decode((folder / f"{kind}-{seed}.json").read_bytes(), type=Outcome)
