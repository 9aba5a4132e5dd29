"""Helper of `agent`: sets a controller up and one device that holds DS-CNN, tells how to start it, stops when told."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from agent import frames
from agent.contract.tensors import Tensor
from agent.loop import Loop
from agent.runtime import load
from agent.workers import Event, Worker, ZygoteWorkers
from controller.client.oip import json_request
from tests.benchmarks.core.agent import DEVICE, MODEL
from tests.benchmarks.fleet import Fleet
from tests.builders import RUNTIMES, dscnn, file_ref, mobilenet_v2, random_inputs


def main(folder: Path, quick: bool) -> None:
    starts = 3 if quick else 20
    worker_ms = {
        "dscnn": worker_start_ms(dscnn(), folder / "dscnn.tflite", starts),
        "mobilenet": worker_start_ms(mobilenet_v2(), folder / "mobilenet.tflite", starts),
    }
    with Fleet(folder / "fleet") as fleet:
        agent = fleet.add_agent(DEVICE)
        fleet.roll_out(MODEL, fleet.push(MODEL, dscnn()))
        agent.stop()
        told = {
            "url": fleet.client.place.url,
            "token_file": str(fleet.client.place.token_file),
            "arguments": fleet.agent_arguments(DEVICE),
            "forgotten_s": 1.0,
            "worker_ms": worker_ms,
            "request": json_request(random_inputs(load(dscnn(), runtimes=RUNTIMES), 1)).decode(),
        }
        _until_offline(fleet)
        print(json.dumps(told), flush=True)
        sys.stdin.readline()


def _until_offline(fleet: Fleet) -> None:
    while fleet.client.device(DEVICE).online:
        time.sleep(0.05)


def worker_start_ms(content: bytes, path: Path, count: int) -> float:
    """Median time from asking the warm fork parent for a worker to that worker's first answer."""
    path.write_bytes(content)
    model = load(content, runtimes=RUNTIMES)
    spec = model.inputs[0]
    row = Tensor(
        spec.name, spec.dtype, (1, *spec.shape), bytes(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize)
    )
    start = frames.Start(
        model=MODEL,
        path=str(path),
        digest=file_ref(content).digest,
        runtimes=RUNTIMES,
        threads=1,
        inputs=model.inputs,
        outputs=model.outputs,
        operators=model.operators,
    )
    loop = Loop()
    workers = ZygoteWorkers(loop)
    try:
        taken = [_one_start(loop, workers, start, row) for _ in range(count + 1)]
    finally:
        workers.close()
        loop.close()
    return statistics.median(taken[1:]) * 1000  # the first one waits for the imports of the fork parent


def _one_start(loop: Loop, workers: ZygoteWorkers, start: frames.Start, row: Tensor) -> float:
    events: list[Event] = []
    began = time.monotonic()
    worker: Worker = workers.spawn(start, lambda _, event: events.append(event))
    worker.compute(frames.Compute(id=1, inputs=(row,)))
    while not any(isinstance(event, frames.Computed) for event in events):
        _refuse(events)
        loop.run_once(0.5)
    taken = time.monotonic() - began
    worker.drain()
    return taken


def _refuse(events: list[Event]) -> None:
    if any(not isinstance(event, frames.Ready | frames.Computed) for event in events):
        raise RuntimeError(f"the worker did not start: {events}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--quick" in sys.argv)
