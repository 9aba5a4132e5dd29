"""The same rows by a pool of processes of others: `multiprocessing`, joblib, or Dask's local cluster.

`main(WAY, MODEL, ROWS.npy, COUNT)` prints the seconds from the first task to the last answer. Every process has its
interpreter before the clock starts and reads its rows from the file by itself; tasks are sized as Lepta's shards would
be. Imports nothing of ours: it runs in an environment of its own.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TASK_S = 0.25
Range = tuple[int, int]
Compute = Callable[[Range], Any]


@functools.cache
def _opened(model: str, rows: str) -> tuple[Any, int, int, Any]:
    from ai_edge_litert.interpreter import Interpreter

    with open(model, "rb") as file:
        interpreter = Interpreter(model_content=file.read(), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    return interpreter, source, target, np.load(rows, mmap_mode="r")


def compute(model: str, rows: str, task: Range) -> Any:
    """Outputs of the rows of a task."""
    interpreter, source, target, array = _opened(model, rows)
    found = []
    for row in range(*task):
        interpreter.set_tensor(source, array[row : row + 1])
        interpreter.invoke()
        found.append(interpreter.get_tensor(target))
    return np.concatenate(found)


def by_pool(work: Compute, warm: list[Range], tasks: list[Range], workers: int) -> float:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(work, warm, chunksize=1)
        began = time.monotonic()
        _count(list(pool.imap_unordered(work, tasks)), tasks)
        return time.monotonic() - began


def by_joblib(work: Compute, warm: list[Range], tasks: list[Range], workers: int) -> float:
    from joblib import Parallel, delayed

    with Parallel(n_jobs=workers) as parallel:
        parallel(delayed(work)(task) for task in warm)
        began = time.monotonic()
        _count(parallel(delayed(work)(task) for task in tasks), tasks)
        return time.monotonic() - began


def by_dask(work: Compute, warm: list[Range], tasks: list[Range], workers: int) -> float:
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(work, warm, pure=False))
        began = time.monotonic()
        _count(client.gather(client.map(work, tasks, pure=False)), tasks)
        return time.monotonic() - began


def _count(answers: list[Any], tasks: list[Range]) -> None:
    if sum(map(len, answers)) != sum(last - first for first, last in tasks):
        raise RuntimeError("answers are missing")


WAYS = {"pool": by_pool, "joblib": by_joblib, "dask": by_dask}


def main(way: str, model: str, rows: str, counted: str) -> None:
    count, workers = int(counted), len(os.sched_getaffinity(0))
    compute(model, rows, (0, 50))
    began = time.monotonic()
    compute(model, rows, (0, min(count, 500)))
    size = max(1, int(TASK_S / ((time.monotonic() - began) / min(count, 500))))
    tasks = [(first, min(first + size, count)) for first in range(0, count, size)]
    print(WAYS[way](functools.partial(compute, model, rows), [(0, 50)] * 4 * workers, tasks, workers))
