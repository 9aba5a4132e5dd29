"""Inside a worker: requests to tensors, tensors through the model, and what is told of the outputs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from agent import feeds, frames, runtime
from agent.contract.faults import fault
from agent.contract.golden import Array
from agent.contract.messages import Fault, Guess, MessageError
from agent.contract.oip import ProtocolError, Request
from agent.contract.tensors import DTYPES, Tensor, TensorError, rows_of
from agent.inputs import Damaged, tensors_of
from agent.local.questions import Desk

_SEEN_ROWS = 16
_MOST_ROWS = 64
"""Of requests that are computed as one: more gain nothing by it."""
Character = tuple[tuple[int, ...], float | None]
_NAMES = {np.dtype(name): name for name in DTYPES}
_FAULTY = (TensorError, MessageError, ProtocolError, runtime.ModelError, Damaged, OSError)


class _Read(NamedTuple):
    """A request, as far as the model is not needed for it."""

    asked: Request | None
    """As the protocol has it, where a program on this device asks."""
    inputs: tuple[Tensor, ...]
    rows: int


class _Found(NamedTuple):
    """Outputs by name, as the model stores them and as real numbers."""

    stored: dict[str, Array]
    reals: dict[str, Array]


class _Written(NamedTuple):
    """What goes to who asked."""

    tensors: tuple[Tensor, ...]
    body: bytes
    header_length: int


class Answering:
    """Answers requests by one model. What is wrong with a request is told in its answer."""

    def __init__(self, model: runtime.Model, start: frames.Start, desk: Desk) -> None:
        self._model = model
        self._start = start
        self._desk = desk
        self._may_be_nan = [spec.name for spec in model.outputs if np.dtype(spec.dtype).kind == "f"]

    def answer(self, orders: Sequence[frames.Compute]) -> list[frames.Computed]:
        """In their order. Rows of several requests are quantized, computed and dequantized as one, which for a small
        model is half of the work; where they do not fit together, or one is wrong, each is answered by itself."""
        return (self._as_one(orders) if len(orders) > 1 else None) or [self._alone(order) for order in orders]

    def inputs(self, order: frames.Compute | frames.Compare) -> tuple[Tensor, ...]:
        """Raises what is in `_FAULTY`."""
        if order.feed is not None:
            return feeds.inputs_of(order.feed, self._model.inputs, self._start.preprocessing)
        return tensors_of(order)

    def _as_one(self, orders: Sequence[frames.Compute]) -> list[frames.Computed] | None:
        began = time.perf_counter()
        try:
            read = [self._read(order) for order in orders]
            rows = sum(each.rows for each in read)
            inputs = _stacked([each.inputs for each in read]) if 0 < rows <= _MOST_ROWS else None
            if inputs is None:
                return None
            found = self._run(inputs)
            counts = [each.rows for each in read]
            mine = list(_parts(found, orders, counts))
            seen = _characters(next(iter(found.reals.values())), counts)
            written = [self._write(order, each, part) for order, each, part in zip(orders, read, mine, strict=True)]
        except _FAULTY:
            return None
        row_ms = (time.perf_counter() - began) * 1000 / rows
        in_turn = zip(orders, read, mine, written, seen, strict=True)
        return [
            self._computed(order, each, part, out, of, each.rows * row_ms) for order, each, part, out, of in in_turn
        ]

    def _alone(self, order: frames.Compute) -> frames.Computed:
        began = time.perf_counter()
        try:
            read = self._read(order)
            found = self._run({tensor.name: to_array(tensor) for tensor in read.inputs})
            written = self._write(order, read, found)
        except (TensorError, MessageError, ProtocolError) as error:
            return frames.Computed(id=order.id, fault=Fault(who="user", message=str(error)[:4000]))
        except runtime.ModelError as error:
            return frames.Computed(id=order.id, fault=Fault(who=error.who, message=str(error)[:4000]))
        except (Damaged, OSError) as error:
            damaged = error.digest if isinstance(error, Damaged) else ""
            return frames.Computed(id=order.id, fault=Fault(who="device", message=str(error)), damaged=damaged)
        seen = character(next(iter(found.reals.values())))
        return self._computed(order, read, found, written, seen, (time.perf_counter() - began) * 1000)

    def _read(self, order: frames.Compute) -> _Read:
        question = order.question
        if question is None:
            inputs = self.inputs(order)
            return _Read(None, inputs, rows_of(inputs))
        asked = self._desk.read(question)
        self._desk.check(question, asked)
        return _Read(asked, asked.tensors, asked.tensors[0].shape[0])  # They were looked at.

    def _run(self, inputs: dict[str, Array]) -> _Found:
        fault("worker.invoke")
        stored = runtime.compute(self._model, inputs)
        return _Found(stored, runtime.reals(self._model, stored))

    def _write(self, order: frames.Compute, read: _Read, found: _Found) -> _Written:
        told = found.stored if order.stored else found.reals
        tensors = tuple([to_tensor(name, array) for name, array in told.items()])
        body, header_length = self._desk.write(read.asked, tensors) if read.asked is not None else (b"", 0)
        return _Written(tensors, body, header_length)

    def _computed(
        self, order: frames.Compute, read: _Read, found: _Found, written: _Written, seen: Character, took_ms: float
    ) -> frames.Computed:
        classes, level = seen
        nonsense = bool(self._may_be_nan) and self._nonsense(read.inputs, found.reals)
        top, scores = ((), ()) if order.feed is None else self._best(order.feed, found.reals)
        return frames.Computed(
            id=order.id, outputs=written.tensors if order.tensors else (), rows=read.rows, service_ms=took_ms,
            classes=classes, level=level, nonsense=nonsense, body=written.body, header_length=written.header_length,
            top=top, scores=scores,
        )  # fmt: skip

    def _best(self, feed: frames.Feed, outputs: dict[str, Array]) -> tuple[tuple[Guess, ...], tuple[float, ...]]:
        return feeds.found(outputs, self._start.labels, feed.binding.top_k)

    def _nonsense(self, inputs: Iterable[Tensor], outputs: dict[str, Array]) -> bool:
        """Is an answer not all finite numbers, though the question was?"""
        if all(np.isfinite(outputs[name]).all() for name in self._may_be_nan):
            return False
        return all(np.isfinite(to_array(tensor)).all() for tensor in inputs)


def _stacked(requests: Sequence[tuple[Tensor, ...]]) -> dict[str, Array] | None:
    """The rows of all of them, one after the other; None where their tensors are not alike."""
    first = requests[0]
    alike = [(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in first]
    for other in requests[1:]:
        if [(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in other] != alike:
            return None
    return {tensors[0].name: _joined(tensors) for tensors in zip(*requests, strict=True)}


def _joined(tensors: Sequence[Tensor]) -> Array:
    """Their rows in one array, by one copy of their bytes."""
    first = tensors[0]
    rows = sum([tensor.shape[0] for tensor in tensors])
    joined = np.frombuffer(b"".join([tensor.data for tensor in tensors]), dtype=first.dtype)
    return joined.reshape((rows, *first.shape[1:]))


def _parts(found: _Found, orders: Sequence[frames.Compute], rows: Sequence[int]) -> Iterator[_Found]:
    """Each request's own; as stored only for whom wants it so."""
    first = 0
    for order, count in zip(orders, rows, strict=True):
        mine = slice(first, first + count)
        first += count
        stored = {name: array[mine] for name, array in found.stored.items()} if order.stored else {}
        yield _Found(stored, {name: array[mine] for name, array in found.reals.items()})


def character(output: Array) -> Character:
    """What a watch compares of an answer: the classes of its first rows, or its mean where it has no classes."""
    if _has_classes(output):
        return tuple(output[:_SEEN_ROWS].argmax(1).tolist()), None
    return (), float(output[:_SEEN_ROWS].mean())


def _characters(output: Array, rows: Sequence[int]) -> list[Character]:
    """The same for each request, by its share of the rows."""
    ends = list(itertools.accumulate(rows))
    if not _has_classes(output):
        return [character(output[end - count : end]) for count, end in zip(rows, ends, strict=True)]
    classes = output.argmax(1).tolist()
    each = zip(rows, ends, strict=True)
    return [(tuple(classes[end - count : end][:_SEEN_ROWS]), None) for count, end in each]


def _has_classes(output: Array) -> bool:
    return output.ndim == 2 and output.shape[1] > 1


def to_array(tensor: Tensor) -> Array:
    """A view of the tensor's bytes; no copy."""
    return np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)


def to_tensor(name: str, array: Array) -> Tensor:
    # Looked up: numpy takes longer to spell the name of a type than to quantize a row.
    return Tensor(name, _NAMES.get(array.dtype) or str(array.dtype), array.shape, array.tobytes())
