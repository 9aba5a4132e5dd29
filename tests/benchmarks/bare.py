"""Bare work: the same model and rows by processes that do nothing else, one per core. What a batch job is held against.

Run as a process: `python -m tests.benchmarks.bare MODEL INPUT ROWS` loads, says `ready`, waits for a line that gives
its first row and step, computes, and prints its seconds of processor time and of wall time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from agent.contract import children


class BareWork(NamedTuple):
    wall_s: float
    """From the common start to the end of the last process."""
    cpu_s: float
    """Of all processes, without loading and warming up."""


def bare_work(model: Path, rows: Path, count: int, processes: int | None = None) -> BareWork:
    """Compute the first `count` rows of `rows` (.npy of the model's stored dtype, rows first) by bare processes."""
    workers = processes or len(os.sched_getaffinity(0))
    running = [_start(model, rows, count, share, workers) for share in range(workers)]
    try:
        for process in running:
            _line(process)
        start = time.monotonic()
        for process in running:
            _say(process, "go")
        cpu = sum(float(_line(process)) for process in running)
        return BareWork(time.monotonic() - start, cpu)
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _start(model: Path, rows: Path, count: int, share: int, workers: int) -> subprocess.Popen[str]:
    arguments = [
        sys.executable,
        "-m",
        "tests.benchmarks.bare",
        str(model),
        str(rows),
        str(count),
        str(share),
        str(workers),
    ]
    return subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=children.environment({"PYTHONSAFEPATH": ""}),
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"a bare process ended with status {process.wait()}: see its message above")
    return line


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def main(arguments: list[str]) -> None:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    model, rows = Path(arguments[0]), np.load(arguments[1], mmap_mode="r")
    count, share, workers = map(int, arguments[2:])
    interpreter = Interpreter(model_content=model.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def compute(row: int) -> None:
        interpreter.set_tensor(source, rows[row : row + 1])
        interpreter.invoke()
        interpreter.get_tensor(target)

    for row in range(min(20, len(rows))):
        compute(row)
    print("ready", flush=True)
    sys.stdin.readline()
    before = time.process_time()
    for number in range(share, count, workers):
        compute(number % len(rows))
    print(time.process_time() - before, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
