"""A job's data: the input file, the rows of a shard as tensors, and the reducer that joins the results."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from agent.contract.messages import MAX_INLINE
from agent.contract.tensors import Tensor, TensorSpec
from controller.errors import UserError
from controller.records import Artifact

Array = npt.NDArray[Any]
# Arrays of an .npz that are no inputs.
LABELS, IDS = "labels", "id"
_ALIAS = "x"


@dataclass(frozen=True)
class JobInput:
    """`inputs` by name, each (rows, ...); `labels` and `ids` are (rows,) or None."""

    inputs: dict[str, Array]
    labels: Array | None
    ids: Array | None
    rows: int


@dataclass(frozen=True)
class ShardResult:
    """An accepted shard: its rows, who computed it with what, and the outputs by name, each (rows, ...)."""

    first: int
    last: int
    device: str
    artifact: str
    runtime: str
    outputs: tuple[Tensor, ...]


def load_input(path: Path, specs: Sequence[TensorSpec]) -> JobInput:
    """Read `.npz` (named inputs, or `x` for the only one) or `.npy`; raises UserError unless it fits the model."""
    arrays = _load(path)
    labels, ids = arrays.pop(LABELS, None), arrays.pop(IDS, None)
    names = [spec.name for spec in specs]
    if len(specs) == 1 and names[0] not in arrays and _ALIAS in arrays:
        arrays[names[0]] = arrays.pop(_ALIAS)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"the input has no array called {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'none'}",
            f"write it with numpy.savez(FILE, {', '.join(f'{n}=...' for n in names)}, labels=...)",
        )
    inputs = {spec.name: _fitting(spec, arrays[spec.name]) for spec in specs}
    counts = {name: len(array) for name, array in inputs.items()}
    rows = next(iter(counts.values()))
    for name, array in ((LABELS, labels), (IDS, ids)):
        if array is not None:
            if array.ndim != 1:
                raise UserError(f"{name} must have one value per row, its shape is {list(array.shape)}")
            counts[name] = len(array)
    if len(set(counts.values())) != 1 or rows == 0:
        raise UserError(f"every array needs the same number of rows, at least one: {counts}")
    return JobInput(inputs, labels, ids, rows)


def row_bytes(data: JobInput) -> int:
    """Bytes of one row on the wire."""
    return sum(array.nbytes // data.rows for array in data.inputs.values())


def most_rows(specs_in_bytes: int, outputs: Sequence[TensorSpec]) -> int:
    """How many rows fit into one message, both as input (`specs_in_bytes` a row) and as float32 output."""
    out_bytes = sum(4 * int(np.prod(spec.shape, dtype=np.int64)) for spec in outputs)
    # Some room for names and shapes.
    return max(1, (MAX_INLINE - 2048) // max(1, specs_in_bytes, out_bytes))


def tensors_of(data: JobInput, first: int, last: int) -> tuple[Tensor, ...]:
    """Rows `first` to `last` (exclusive) of every input."""
    return tuple(_tensor(name, array[first:last]) for name, array in data.inputs.items())


def reduce_scores(results: Iterable[ShardResult], data: JobInput) -> tuple[bytes, dict[str, float]]:
    """Join accepted shards, in any order, into one `.npz`: per row id, label, score, every output, and who computed it.

    Rows of quarantined shards have label -1 and device -1. Returns the file and the metrics (accuracy with labels).
    """
    table = _Table(data)
    for result in results:
        table.add(result)
    return table.write()


class _Table:
    def __init__(self, data: JobInput) -> None:
        self._data = data
        self._outputs: dict[str, Array] = {}
        self._who = {kind: np.full(data.rows, -1, np.int32) for kind in ("device", "artifact", "runtime")}
        self._names: dict[str, list[str]] = {kind: [] for kind in self._who}

    def add(self, result: ShardResult) -> None:
        rows = slice(result.first, result.last)
        for tensor in result.outputs:
            array = np.frombuffer(tensor.data, dtype=tensor.dtype).reshape(tensor.shape)
            if tensor.name not in self._outputs:
                self._outputs[tensor.name] = np.full((self._data.rows, *tensor.shape[1:]), np.nan, np.float32)
            self._outputs[tensor.name][rows] = array
        for kind, value in (("device", result.device), ("artifact", result.artifact), ("runtime", result.runtime)):
            names = self._names[kind]
            if value not in names:
                names.append(value)
            self._who[kind][rows] = names.index(value)

    def write(self) -> tuple[bytes, dict[str, float]]:
        rows = self._data.rows
        done = self._who["device"] >= 0
        columns: dict[str, Array] = {"id": self._data.ids if self._data.ids is not None else np.arange(rows)}
        metrics = {"rows": float(rows), "rows_computed": float(done.sum())}
        scores = next((a for a in self._outputs.values() if a.ndim == 2 and a.shape[1] > 1), None)
        if scores is not None:
            columns["label"] = np.where(done, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1), -1)
            columns["score"] = scores.max(axis=1)
            if self._data.labels is not None and done.any():
                metrics["accuracy"] = float((columns["label"] == self._data.labels)[done].mean())
        columns |= {f"output:{name}": array for name, array in self._outputs.items()}
        columns |= self._who | {f"{kind}s": np.array(names, dtype=np.str_) for kind, names in self._names.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]
        return buffer.getvalue(), metrics


def inputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["inputs"], tuple[TensorSpec, ...])


def outputs_of(artifact: Artifact) -> tuple[TensorSpec, ...]:
    return msgspec.convert(artifact.report["outputs"], tuple[TensorSpec, ...])


def _load(path: Path) -> dict[str, Array]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {_ALIAS: loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"the input is neither .npy nor .npz: {error}", "write it with numpy.savez") from error


def _fitting(spec: TensorSpec, array: Array) -> Array:
    if array.shape[1:] != spec.shape:
        raise UserError(f"input {spec.name!r} needs shape {['rows', *spec.shape]}, the file has {list(array.shape)}")
    if array.dtype.kind not in "fiub":
        raise UserError(f"input {spec.name!r} needs numbers, the file has {array.dtype}")
    # Numbers that are not of the model's own stored type are real numbers in the user's units.
    return np.ascontiguousarray(array if array.dtype.name == spec.dtype else array.astype(np.float32))


def _tensor(name: str, array: Array) -> Tensor:
    return Tensor(name, array.dtype.name, array.shape, array.astype(array.dtype.newbyteorder("<")).tobytes())
