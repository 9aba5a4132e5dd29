"""Simulated devices: real agents on the real contract, many in one process, with workers that only pretend to compute.

Everything but the interpreter is real: enrolment, connection, signed state, fetching, swaps, leases. A simulated worker
takes `row_ms` per row and answers class `sum of the row's bytes mod classes`: a checker can tell right from wrong.

    python -c 'from controller.simulate import main; main()' --controller URL --token-file F --agents 50 --folder DIR
"""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from agent import enroll, facts, frames
from agent.blobs import Blobs
from agent.contract.messages import Fault, MessageError, ProbeResult
from agent.contract.tensors import Tensor, TensorError, TensorSpec, rows_of
from agent.disk import RealDisk
from agent.inputs import Damaged, tensors_of
from agent.join import Invitation, join
from agent.keeper import Keeper
from agent.link import Link
from agent.load import Sampler
from agent.loop import Loop
from agent.pointers import PointerFile
from agent.settings import AgentSettings
from agent.supervisor import Supervisor
from agent.workers import Exited, Listener, Worker
from firmware_profiles.profile import Facts

FAMILY = "simulated"
_LOAD_MS = 20.0


@dataclass(frozen=True)
class Simulation:
    """What a simulated device is like."""

    row_ms: float = 1.0
    """Computing time of one row."""
    accuracy: float = 1.0
    """What its probes report."""
    wrong_every: int = 0
    """Every so many-th row of a shard is answered with the next class, as a device does whose memory is bad."""
    poison: bytes = b""
    """Rows that hold these bytes cannot be computed."""


class SimulatedWorkers:
    """The port `agent.workers.Workers` on timers of the loop."""

    stored = False

    def __init__(self, loop: Loop, simulation: Simulation) -> None:
        self._loop = loop
        self._simulation = simulation
        self._all: list[_SimulatedWorker] = []

    def spawn(self, start: frames.Start, listener: Listener, behind_s: float = 0.0) -> Worker:
        worker = _SimulatedWorker(self._loop, self._simulation, start, listener)
        self._all = [w for w in self._all if not w.over] + [worker]
        return worker

    def close(self) -> None:
        for worker in self._all:
            worker.kill()


class _SimulatedWorker:
    """Orders are done one after the other, each in its time."""

    def __init__(self, loop: Loop, simulation: Simulation, start: frames.Start, listener: Listener) -> None:
        self._loop = loop
        self._simulation = simulation
        self._start = start
        self._listener = listener
        self._orders: deque[tuple[float, Callable[[], frames.FromWorker | Exited]]] = deque()
        self._working = False
        self.over = False
        ready = frames.Ready(family=FAMILY, runtime=f"{FAMILY}, {simulation.row_ms} ms a row", load_ms=_LOAD_MS)
        self._order(_LOAD_MS, lambda: ready)

    def compute(self, order: frames.Compute) -> None:
        try:
            inputs = tensors_of(order)
            rows = rows_of(inputs)
        except (TensorError, MessageError, Damaged, OSError):
            inputs, rows = (), 0
        busy_ms = self._simulation.row_ms * rows
        self._order(busy_ms, lambda: _computed(order.id, inputs, self._start.outputs, rows, busy_ms, self._simulation))

    def promote(self) -> None:
        """A simulated worker takes no processor time."""

    def probe(self, order: frames.Probe) -> None:
        accuracy = self._simulation.accuracy
        result = ProbeResult(agreement=1.0, sqnr_db=60.0, accuracy=accuracy, latency_ms=self._simulation.row_ms)
        self._order(self._simulation.row_ms, lambda: frames.Probed(result=result))

    def compare(self, order: frames.Compare) -> None:
        rows = order.outputs[0].shape[0]
        busy_ms = self._simulation.row_ms * rows
        self._order(busy_ms, lambda: frames.Compared(rows=rows, agreed=rows))

    def measure(self, order: frames.Measure) -> None:
        measured = frames.Measured(id=order.id, median_ms=self._simulation.row_ms)
        self._order(self._simulation.row_ms * order.runs, lambda: measured)

    def drain(self) -> None:
        self._order(0.0, lambda: Exited(""))

    def kill(self) -> None:
        self._orders.clear()
        self._loop.call_soon(lambda: self._tell(Exited("killed")))

    def _order(self, ms: float, result: Callable[[], frames.FromWorker | Exited]) -> None:
        self._orders.append((ms, result))
        if not self._working:
            self._next()

    def _next(self) -> None:
        self._working = bool(self._orders)
        if self._orders:
            ms, result = self._orders.popleft()
            self._loop.call_later(ms / 1000, lambda: self._done(result))

    def _done(self, result: Callable[[], frames.FromWorker | Exited]) -> None:
        self._tell(result())
        if not self.over:
            self._next()

    def _tell(self, event: frames.FromWorker | Exited) -> None:
        if not self.over:
            self.over = isinstance(event, Exited)
            self._listener(self, event)


def simulated_outputs(
    inputs: Sequence[Tensor], specs: Sequence[TensorSpec], rows: int, wrong_every: int = 0
) -> tuple[Tensor, ...]:
    """One-hot rows: the class is the sum of the row's bytes, over all inputs, modulo the number of classes."""
    sums = [int(bool(wrong_every) and row % wrong_every == 0) for row in range(rows)]
    for tensor in inputs:
        width = len(tensor.data) // rows
        for row in range(rows):
            sums[row] += sum(tensor.data[row * width : (row + 1) * width])
    return tuple(_one_hot(spec, sums) for spec in specs)


def _one_hot(spec: TensorSpec, sums: Sequence[int]) -> Tensor:
    classes = max(1, prod(spec.shape))
    values = array("f", bytes(4 * classes * len(sums)))
    for row, total in enumerate(sums):
        values[row * classes + total % classes] = 1.0
    return Tensor(spec.name, "float32", (len(sums), *spec.shape), values.tobytes())


def _computed(
    number: int,
    inputs: Sequence[Tensor],
    specs: Sequence[TensorSpec],
    rows: int,
    busy_ms: float,
    simulation: Simulation,
) -> frames.Computed:
    if simulation.poison and any(simulation.poison in tensor.data for tensor in inputs):
        return frames.Computed(id=number, fault=Fault(who="device", message="these rows are poison"))
    outputs = simulated_outputs(inputs, specs, rows, simulation.wrong_every) if rows else ()
    return frames.Computed(id=number, outputs=outputs, rows=rows, service_ms=busy_ms)


class SimulatedFleet:
    """Agents `sim-000`, `sim-001` and so on, on one loop. `run` until `stop` is called (from any thread)."""

    def __init__(
        self,
        controller: str,
        token: str,
        folder: Path,
        count: int,
        simulate: Callable[[int], Simulation] = lambda _: Simulation(),
        first: int = 0,
    ) -> None:
        """Enrols the agents (the claim needs `count` uses), the first as number `first`. Raises
        agent.enroll.EnrollError."""
        self._loop = Loop()
        self._stop = threading.Event()
        here = facts.gather(folder, overrides={"runtimes": ["ai-edge-litert"]})
        self.agents = [
            self._make(controller, token, folder / f"sim-{n:03}", f"sim-{n:03}", here, simulate(n))
            for n in range(first, first + count)
        ]

    def run(self) -> None:
        for agent in self.agents:
            agent.start()
        while not self._stop.is_set():
            self._loop.run_once(0.2)
        for agent in self.agents:
            agent.stop()
        while not all(agent.stopped for agent in self.agents):
            self._loop.run_once(0.1)
        self._loop.close()

    def stop(self) -> None:
        self._stop.set()

    def _make(
        self, controller: str, token: str, folder: Path, name: str, here: Facts, simulation: Simulation
    ) -> Supervisor:
        folder.mkdir(parents=True, exist_ok=True)
        settings = AgentSettings(controller=controller, name=name, data=str(folder))
        limits = settings.limits
        identity = enroll.stored(folder) or join(folder, Invitation(controller, token, name=name), here, limits)
        disk = RealDisk()
        return Supervisor(
            loop=self._loop,
            link=Link(self._loop, identity.broker, name, limits),
            workers=SimulatedWorkers(self._loop, simulation),
            blobs=Blobs(folder, disk, limits.disk_mb << 20, limits.reserve_mb << 20),
            keeper=Keeper(self._loop, PointerFile(folder, disk)),
            identity=identity,
            settings=settings,
            facts=here,
            new_id=lambda: secrets.token_hex(8),
            sampler=Sampler(cpu=lambda: 0.0),
        )


def main() -> int:
    """Run simulated agents until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="simulated agents on the real contract")
    parser.add_argument("--controller", required=True, help="URL of the controller")
    parser.add_argument("--token-file", required=True, type=Path, help="file with a claim token of enough uses")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--row-ms", type=float, default=1.0, help="computing time of one row")
    parser.add_argument("--folder", required=True, type=Path, help="where the agents keep their data")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    simulation = Simulation(row_ms=options.row_ms)
    token = options.token_file.read_text().strip()
    place = (options.controller, token, options.folder)
    fleet = SimulatedFleet(*place, options.agents, lambda _: simulation, options.first)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: fleet.stop())
    print(f"{options.agents} simulated agents run", flush=True)
    fleet.run()
    return 0
