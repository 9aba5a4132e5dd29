"""Where an int8 artifact loses what the float graph has, operator by operator. No TensorFlow.

Two figures per operator. `sqnr_db` compares what it writes in both graphs: errors of all operators before it are in
there. `own_sqnr_db` is that of the model's outputs when this operator alone is rounded, its weights and what it
writes: so it says who is at fault, also where one huge channel leaves no steps for the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from optimizer.data import Array, Splits
from optimizer.errors import RefusedError
from optimizer.flatfile import Flatfile, is_float
from optimizer.macs import of_operator
from optimizer.one_quantized import Artifact, with_values, with_weights
from optimizer.passes import Inputs, Progress
from optimizer.pow2 import groups_of
from optimizer.quantize_names import Named, tensor_name
from optimizer.settings import LIMITS
from optimizer.softmax_range import scores_of
from optimizer.traced import Traced
from optimizer.work_files import ERRORS, FLOAT

_LEAST, _MOST = 4, 32
"""Rows that are compared."""
_NOTHING = 1e-3
"""A share of the whole error that is not worth leaving an operator float."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of the float graph. A figure is None where the artifact has no such tensor, or rounds nothing."""

    name: str
    operator: str
    sqnr_db: float | None
    """Signal to noise of what it writes, in dB."""
    own_sqnr_db: float | None
    max_error: float | None
    """Largest difference in what it writes, in its own unit."""
    bytes: int
    """Of its constants in the artifact."""
    macs: int


class Found(NamedTuple):
    layers: list[Layer]
    worst: list[str]
    """Operators to leave float, in the order in which each adds most for its place."""
    interface: dict[str, float]
    """SQNR of the outputs in dB when this input or output alone is rounded; only a float interface mends it."""


class _Item(NamedTuple):
    """An error, as noise over signal of the outputs, and the operators that must be float for it to be gone."""

    noise: float
    operators: frozenset[int]


def find_errors(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs `artifact`, `data`, and `float`, the graph that the artifact was made from; where that is left
    out, `source` if that is a .tflite file, or what `quantize` left beside the artifact. Writes errors.json.

    `seconds` bounds the time for it, about.
    """
    progress(0.0, "loading")
    floating, artifact = _float_of(inputs).read_bytes(), inputs["artifact"].read_bytes()
    rows = Splits(inputs["data"], Traced(floating).specs()).calibration(_MOST)
    found = compare(floating, artifact, rows, settings.get("seconds", LIMITS.errors_seconds), progress)
    result = {
        "layers": [msgspec.to_builtins(layer) for layer in found.layers],
        "worst": found.worst,
        "interface": found.interface,
    }
    (out / ERRORS).write_bytes(msgspec.json.encode(result))
    progress(1.0, f"{len(found.layers)} operators")
    return result


def compare(floating: bytes, artifact: bytes, rows: Mapping[str, Array], seconds: float, progress: Progress) -> Found:
    """`rows`: real numbers (rows, ...) by input name. More than 4 rows are used as far as `seconds` suffice."""
    return _Comparison(floating, artifact, rows, seconds, progress).found()


def _float_of(inputs: Inputs) -> Path:
    beside = inputs["artifact"].parent / FLOAT
    source = inputs.get("source")
    of_source = source if source is not None and source.suffix == ".tflite" else None
    path: Path | None = inputs.get("float") or of_source or (beside if beside.exists() else None)
    if path is None:
        raise RefusedError("errors are found against the float graph, which only scheme int8 leaves")
    return path


class _Comparison:
    def __init__(
        self, floating: bytes, artifact: bytes, rows: Mapping[str, Array], seconds: float, progress: Progress
    ) -> None:
        self._floating, self._progress = floating, progress
        self._file, self._artifact = Flatfile(floating), Artifact(artifact)
        self._content = artifact
        self._named = Named(self._file)
        self._plain = Traced(floating)
        self._rows = self._affordable(rows, seconds)
        self._expected = self._plain.outputs(self._rows)
        self._ports = {int(index) for index in (*self._file.graph.inputs, *self._file.graph.outputs)}

    def found(self) -> Found:
        seen = self._seen()
        weights = self._by_weights()
        values = self._by_values()
        own = [weights[at].noise if at in weights else 0.0 for at in range(len(self._named.operators))]
        writers = self._writers()
        for group, item in values.items():
            for at in {writers[index] for index in group if index in writers}:
                own[at] += item.noise
        layers = [self._layer(at, seen, own[at]) for at in range(len(own))]
        mendable = [item for group, item in values.items() if self._mendable(group)]
        return Found(layers, self._worst([*weights.values(), *mendable]), self._interface(values))

    def _affordable(self, rows: Mapping[str, Array], seconds: float) -> dict[str, Array]:
        one = {name: array[:1] for name, array in rows.items()}
        self._plain.outputs(one)
        started = time.perf_counter()
        self._plain.outputs(one)
        each = time.perf_counter() - started
        runs = 2 * len(self._named.operators) + 2
        count = int(np.clip(seconds / max(each * runs, 1e-9), _LEAST, _MOST))
        return {name: array[:count] for name, array in rows.items()}

    def _seen(self) -> dict[str, tuple[float, float]]:
        """SQNR and largest error of every tensor that both graphs have."""
        names = [tensor_name(self._file, index) for op in self._named.operators for index in op.outputs]
        exact = Traced(self._floating, every=True).tensors(self._rows, names)
        rounded = Traced(self._content, every=True).tensors(self._rows, names)
        for name in {tensor_name(self._file, index) for index in scores_of(self._file)} & exact.keys() & rounded.keys():
            # What a narrowed range cuts off changes no answer: it is no error.
            exact[name] = np.clip(exact[name], *self._artifact.reach(name))
        return {
            name: (_db(_noise(exact[name], rounded[name])), float(np.abs(exact[name] - rounded[name]).max(initial=0)))
            for name in names
            if name in exact and name in rounded and exact[name].shape == rounded[name].shape
        }

    def _by_weights(self) -> dict[int, _Item]:
        found = {}
        for at, op in enumerate(self._named.operators):
            self._progress(0.1 + 0.4 * at / len(self._named.operators), self._named.names[at])
            weights = self._artifact.weights(tensor_name(self._file, op.outputs[0]))
            changed = with_weights(self._floating, op, weights)
            if changed is not None:
                found[at] = _Item(self._harm(changed), frozenset({at}))
        return found

    def _by_values(self) -> dict[tuple[int, ...], _Item]:
        """One error per value: tensors that share a scale are one, however often they are moved about."""
        groups = self._groups()
        found = {}
        for at, group in enumerate(groups):
            self._progress(0.5 + 0.5 * at / len(groups), tensor_name(self._file, group[0])[:80])
            names = {index: tensor_name(self._file, index) for index in group}
            rounded = {index: self._artifact.stored[name] for index, name in names.items()}
            touching = frozenset(
                at for at, op in enumerate(self._named.operators) if not {*op.inputs, *op.outputs}.isdisjoint(group)
            )
            found[group] = _Item(self._harm(with_values(self._floating, rounded)), touching)
        return found

    def _groups(self) -> list[tuple[int, ...]]:
        known = [
            index
            for index, tensor in enumerate(self._file.graph.tensors)
            if is_float(tensor)
            and self._file.constant(index) is None
            and tensor_name(self._file, index) in self._artifact.stored
        ]
        members: dict[int, list[int]] = {}
        for index, group in groups_of(self._named.operators, known).items():
            members.setdefault(group, []).append(index)
        return [tuple(group) for group in members.values()]

    def _harm(self, content: bytes) -> float:
        outputs = Traced(content).outputs(self._rows)
        noises = [_noise(expected, outputs[name]) for name, expected in self._expected.items()]
        return sum(noises) / len(noises)

    def _writers(self) -> dict[int, int]:
        return {index: at for at, op in enumerate(self._named.operators) for index in op.outputs}

    def _mendable(self, group: Iterable[int]) -> bool:
        """Inside, or at a float interface."""
        ports = self._ports.intersection(group)
        return all(tensor_name(self._file, index) in self._artifact.float_ports for index in ports)

    def _interface(self, values: Mapping[tuple[int, ...], _Item]) -> dict[str, float]:
        names = self._plain.port_names()
        return {
            names.get(index, tensor_name(self._file, index)): _db(item.noise)
            for group, item in values.items()
            for index in group
            if index in self._ports
        }

    def _worst(self, items: list[_Item]) -> list[str]:
        """Greedy: the item that takes away most noise per operator that has yet to become float."""
        total = sum(item.noise for item in items)
        chosen: list[int] = []
        left = [item for item in items if item.noise > _NOTHING * total]
        while left := [item for item in left if item.operators - set(chosen)]:
            best = max(left, key=lambda item: item.noise / len(item.operators - set(chosen)))
            chosen += sorted(best.operators - set(chosen))
        return [self._named.names[at] for at in chosen]

    def _layer(self, at: int, seen: Mapping[str, tuple[float, float]], own: float) -> Layer:
        op = self._named.operators[at]
        written = tensor_name(self._file, op.outputs[0]) if op.outputs else ""
        sqnr, largest = seen.get(written, (None, None))
        return Layer(
            name=self._named.names[at],
            operator=op.name,
            sqnr_db=sqnr,
            own_sqnr_db=_db(own) if own > 0 else None,
            max_error=largest,
            bytes=self._artifact.constant_bytes(written),
            macs=of_operator(self._file, op),
        )


def _noise(exact: Array, rounded: Array) -> float:
    """Power of the difference over power of the signal; both silent: nothing."""
    exact, rounded = exact.astype(np.float64), rounded.astype(np.float64)
    noise, signal = float(np.square(exact - rounded).sum()), float(np.square(exact).sum())
    if not math.isfinite(noise):
        return 1e12
    return noise / signal if signal > 0 else (1e12 if noise > 0 else 0.0)


def _db(noise: float) -> float:
    """Bounded, so that it is a number in JSON."""
    return min(200.0, max(-120.0, -10 * math.log10(max(noise, 1e-20))))
