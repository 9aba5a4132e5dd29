"""A worker process: loads one model from verified bytes, proves it, and answers frames until its pipe closes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np

from agent import batching, frames, priority, runtime
from agent.answering import Answering, to_array
from agent.contract import golden
from agent.contract.messages import Fault, MessageError, ProbeResult
from agent.contract.oip import ProtocolError
from agent.contract.tensors import TensorError, TensorSpec
from agent.inputs import Damaged, read_verified
from agent.local.questions import Desk
from agent.memory import pss_mb, trim

_LATENCY_RUNS = 30
_LATENCY_BUDGET_S = 0.3
_PROBE_ROWS = 16
_PROBE_PAUSE_S = 0.001
_TOGETHER = 16


class Unfit(Exception):
    """The artifact is not what its manifest says, or answers nonsense."""


def main(sock: socket.socket, behind: bool) -> int:
    """Serve the supervisor at the other end of `sock`; return the exit status. One that was forked `behind`
    another, which serves, gives way to it until requests are its own."""
    pipe = frames.Pipe(sock)
    start = pipe.receive()
    if not isinstance(start, frames.Start):
        return 2
    try:
        worker = Worker(start)
        priority.insist()
        pipe.send(worker.ready)
        _serve(pipe, worker, start.wait_ms, behind)
    except (BrokenPipeError, ConnectionResetError):
        return 0  # Nobody wants the answer any more.
    except (Damaged, Unfit, golden.GoldenError, runtime.RuntimeUnavailable, runtime.ModelError, OSError) as error:
        pipe.send(_failure(error))
        return 1
    return 0


def _serve(pipe: frames.Pipe, worker: Worker, wait_ms: float, behind: bool) -> None:
    """Answer until there is nobody to answer. Requests that have come already are answered together, as many as can be
    within `wait_ms`."""
    took_ms = wait_ms
    while (frame := pipe.receive()) is not None:
        if isinstance(frame, frames.Compute):
            computed = worker.compute([frame, *pipe.requests(batching.at_once(took_ms, wait_ms, _TOGETHER) - 1)])
            took_ms = sum(one.service_ms for one in computed) / len(computed)
            pipe.send(*computed)
        else:
            if behind:
                priority.give_way()
            answer = worker.answer(frame)
            priority.insist()
            pipe.send(answer)


class Worker:
    """One loaded model. Errors of a request are answered; errors of the model end the worker."""

    def __init__(self, start: frames.Start) -> None:
        began = time.perf_counter()
        content = read_verified(start.path, start.digest)
        # Golden sets go through the bare model: a simulated delay would change no answer, only the swap's length.
        with _quiet():
            self._bare = self._model = runtime.load(content, runtimes=start.runtimes, threads=start.threads)
        _check_described(self._bare, start)
        if start.extra_ms_per_row:
            self._model = runtime.Slowed(self._bare, start.extra_ms_per_row)
        self._start = start
        self._model.invoke(_zeros(self._model.inputs))
        del content
        self._desk = Desk(start, self._model.runtime)
        self._answering = Answering(self._model, start, self._desk)
        self.compute = self._answering.answer
        trim()
        self.ready = frames.Ready(
            family=self._model.family, runtime=self._model.runtime, load_ms=(time.perf_counter() - began) * 1000
        )

    def answer(self, frame: frames.ToWorker) -> frames.FromWorker:
        """Anything but a request."""
        match frame:
            case frames.Probe():
                return frames.Probed(result=self.probe(frame))
            case frames.Compare():
                return self.compare(frame)
            case frames.Measure():
                return frames.Measured(id=frame.id, median_ms=self.measure(frame.runs))
        raise frames.FrameError("a worker is started once")

    def probe(self, order: frames.Probe) -> ProbeResult:
        """Measure faithfulness, accuracy, latency and memory."""
        parity = golden.read_parity(read_verified(order.parity, order.parity_digest))
        faithful = golden.faithfulness(parity.outputs, self._predict_calmly(parity.inputs))
        acceptance = golden.read_acceptance(read_verified(order.acceptance, order.acceptance_digest))
        scores = next(iter(self._predict_calmly(acceptance.inputs).values()))
        return ProbeResult(
            agreement=faithful.agreement,
            sqnr_db=faithful.sqnr_db,
            accuracy=golden.accuracy(acceptance.labels, scores),
            latency_ms=self.measure(_LATENCY_RUNS),
            memory_mb=pss_mb(),
            load_ms=self.ready.load_ms,
        )

    def compare(self, order: frames.Compare) -> frames.Compared:
        """How many rows are answered as the serving version did. One that cannot be answered does not agree."""
        expected = {tensor.name: to_array(tensor) for tensor in order.outputs}
        rows = len(next(iter(expected.values())))
        try:
            inputs = (
                self._desk.read(order.question).tensors if order.question is not None else self._answering.inputs(order)
            )
            found = runtime.predict(self._model, {tensor.name: to_array(tensor) for tensor in inputs})
            return frames.Compared(rows=rows, agreed=golden.agreeing(expected, found))
        except (TensorError, MessageError, ProtocolError, runtime.ModelError, golden.GoldenError, Damaged, OSError):
            return frames.Compared(rows=rows, agreed=0)

    def measure(self, runs: int) -> float:
        """Median milliseconds of a single row, over at most `runs` and about 0.3 s."""
        row = _zeros(self._model.inputs)
        times: list[float] = []
        stop = time.perf_counter() + _LATENCY_BUDGET_S
        while len(times) < max(1, runs) and (not times or time.perf_counter() < stop):
            began = time.perf_counter()
            self._model.invoke(row)
            times.append((time.perf_counter() - began) * 1000)
        return float(np.median(times))

    def _predict_calmly(self, inputs: dict[str, golden.Array]) -> dict[str, golden.Array]:
        """All rows, a few at a time with pauses: the serving worker beside us keeps its processor."""
        rows = len(next(iter(inputs.values())))
        parts = []
        for first in range(0, rows, _PROBE_ROWS):
            part = {name: array[first : first + _PROBE_ROWS] for name, array in inputs.items()}
            parts.append(runtime.predict(self._bare, part))
            time.sleep(_PROBE_PAUSE_S)
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise Unfit("the model's outputs on its golden set are not all finite numbers (NaN or infinity)")
        return outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Native code greets every interpreter on standard error; errors come as exceptions."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def rehearse(runtimes: list[str]) -> None:
    """Before forking: import what a worker imports late, and touch what it uses first."""
    runtime.preload(runtimes)
    one = np.zeros((1, 1), np.float32)
    parity = golden.read_parity(golden.write_parity(golden.ParitySet({"x": one}, {"y": one})))
    golden.faithfulness(parity.outputs, parity.outputs)


def run_forked(sock: socket.socket, behind: bool) -> None:
    """Body of a freshly forked worker process; never returns."""
    status = 70
    try:
        status = main(sock, behind)
    finally:
        priority.step_back()  # To give all its memory back takes milliseconds, which belong to who serves now.
        os._exit(status)


def _failure(error: Exception) -> frames.Failed:
    if isinstance(error, Damaged):
        return frames.Failed(fault=Fault(who="device", message=str(error)), damaged=(error.digest,))
    if isinstance(error, runtime.ModelError):
        return frames.Failed(fault=Fault(who=error.who, message=str(error)[:4000]))
    who: Literal["user", "device"] = "device" if isinstance(error, OSError | runtime.RuntimeUnavailable) else "user"
    return frames.Failed(fault=Fault(who=who, message=str(error)[:4000]))


def _check_described(model: runtime.Model, start: frames.Start) -> None:
    """The file must be the model that the manifest describes."""
    unknown = sorted(set(model.operators) - set(start.operators))
    if unknown:
        raise Unfit(f"the file uses operators that its manifest does not name: {', '.join(unknown)}")
    for what, told, found in (("inputs", start.inputs, model.inputs), ("outputs", start.outputs, model.outputs)):
        if {(s.name, s.dtype, s.shape) for s in told} != {(s.name, s.dtype, s.shape) for s in found}:
            raise Unfit(f"the file's {what} are not those of its manifest")


def _zeros(specs: tuple[TensorSpec, ...]) -> dict[str, golden.Array]:
    """One row of zeros per input, in its stored dtype."""
    return {spec.name: np.zeros((1, *spec.shape), dtype=spec.dtype) for spec in specs}
