"""A worker process: loads one model from verified bytes, proves it, and answers frames until its pipe closes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from agent import batching, feeds, frames, priority, runtime
from agent.contract import golden
from agent.contract.faults import fault
from agent.contract.messages import Fault, Guess, MessageError, ProbeResult
from agent.contract.oip import ProtocolError, Request
from agent.contract.tensors import DTYPES, Tensor, TensorError, TensorSpec, rows_of
from agent.inputs import Damaged, read_verified, tensors_of
from agent.local.questions import Desk
from agent.memory import pss_mb, trim

_LATENCY_RUNS = 30
_LATENCY_BUDGET_S = 0.3
_PROBE_ROWS = 16
_PROBE_PAUSE_S = 0.001
_SEEN_ROWS = 16
_NAMES = {np.dtype(name): name for name in DTYPES}


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
    """Answer until there is nobody to answer; where more has come already, an answer may wait for the next."""
    kept_ms = 0.0
    while (frame := pipe.receive()) is not None:
        if isinstance(frame, frames.Compute):
            answer: frames.FromWorker = worker.compute(frame)
        else:
            if behind:
                priority.give_way()
            answer = worker.answer(frame)
            priority.insist()
        took = answer.service_ms if isinstance(answer, frames.Computed) else wait_ms
        if batching.keep_back(pipe.more, kept_ms, took, wait_ms):
            pipe.keep(answer)
            kept_ms += took
        else:
            pipe.send(answer)
            kept_ms = 0.0


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
        self._may_be_nan = [spec.name for spec in self._model.outputs if np.dtype(spec.dtype).kind == "f"]
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

    def compute(self, order: frames.Compute) -> frames.Computed:
        """Answer one request; the user's mistakes become a fault in the answer."""
        began = time.perf_counter()
        try:
            asked = self._asked(order.question)
            inputs = asked.tensors if asked is not None else self._inputs(order)
            rows = inputs[0].shape[0] if asked is not None else rows_of(inputs)  # A question's were looked at.
            fault("worker.invoke")
            found = runtime.compute(self._model, {tensor.name: to_array(tensor) for tensor in inputs})
            outputs = runtime.reals(self._model, found)
            told = found if order.stored else outputs
            tensors = tuple(to_tensor(name, array) for name, array in told.items())
            body, header = self._desk.write(asked, tensors) if asked is not None else (b"", 0)
        except (TensorError, MessageError, ProtocolError) as error:
            return frames.Computed(id=order.id, fault=Fault(who="user", message=str(error)[:4000]))
        except runtime.ModelError as error:
            return frames.Computed(id=order.id, fault=Fault(who=error.who, message=str(error)[:4000]))
        except (Damaged, OSError) as error:
            damaged = error.digest if isinstance(error, Damaged) else ""
            return frames.Computed(id=order.id, fault=Fault(who="device", message=str(error)), damaged=damaged)
        took_ms = (time.perf_counter() - began) * 1000
        classes, level = character(next(iter(outputs.values())))
        nonsense = bool(self._may_be_nan) and self._nonsense(inputs, outputs)
        top, scores = ((), ()) if order.feed is None else self._found(order.feed, outputs)
        return frames.Computed(
            id=order.id, outputs=tensors if order.tensors else (), rows=rows, service_ms=took_ms, classes=classes,
            level=level, nonsense=nonsense, body=body, header_length=header, top=top,
            scores=scores,
        )  # fmt: skip

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
            inputs = self._desk.read(order.question).tensors if order.question is not None else self._inputs(order)
            found = runtime.predict(self._model, {tensor.name: to_array(tensor) for tensor in inputs})
            return frames.Compared(rows=rows, agreed=golden.agreeing(expected, found))
        except (TensorError, MessageError, ProtocolError, runtime.ModelError, golden.GoldenError, Damaged, OSError):
            return frames.Compared(rows=rows, agreed=0)

    def _asked(self, question: frames.Question | None) -> Request | None:
        if question is None:
            return None
        asked = self._desk.read(question)
        self._desk.check(question, asked)
        return asked

    def _inputs(self, order: frames.Compute | frames.Compare) -> tuple[Tensor, ...]:
        if order.feed is not None:
            return feeds.inputs_of(order.feed, self._model.inputs, self._start.preprocessing)
        return tensors_of(order)

    def _found(
        self, feed: frames.Feed, outputs: dict[str, golden.Array]
    ) -> tuple[tuple[Guess, ...], tuple[float, ...]]:
        return feeds.found(outputs, self._start.labels, feed.binding.top_k)

    def _nonsense(self, inputs: Iterable[Tensor], outputs: dict[str, golden.Array]) -> bool:
        """Is an answer not all finite numbers, though the question was?"""
        if all(np.isfinite(outputs[name]).all() for name in self._may_be_nan):
            return False
        return all(np.isfinite(to_array(tensor)).all() for tensor in inputs)

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


def character(output: golden.Array) -> tuple[tuple[int, ...], float | None]:
    """What a watch compares of an answer: the classes of its first rows, or its mean where it has no classes."""
    if output.ndim == 2 and output.shape[1] > 1:
        return tuple(output[:_SEEN_ROWS].argmax(1).tolist()), None
    return (), float(output[:_SEEN_ROWS].mean())


def to_array(tensor: Tensor) -> golden.Array:
    """A view of the tensor's bytes; no copy."""
    return np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)


def to_tensor(name: str, array: golden.Array) -> Tensor:
    # Looked up: numpy takes longer to spell the name of a type than to quantize a row.
    return Tensor(name, _NAMES.get(array.dtype) or str(array.dtype), array.shape, array.tobytes())


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
