"""Brings a float .tflite into the one form that the rest knows: one signature with clean names, weights of 32 bits.

The quantizer does nothing, without a word, to weights of 16 bits, and fails on models without a signature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from optimizer.flatfile import Flatfile, as_text
from optimizer.sources.specs import InputSpec, SourceError

_SIGNATURE = "serving_default"
_DTYPES: dict[int, str] = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int) and name.isupper()
}


class Canonical:
    """A model in that form. `inputs` and `outputs` are as its signature has them."""

    def __init__(self, name: str, content: bytes) -> None:
        """Raises SourceError for a model that cannot be brought into it; `name` stands in it."""
        self._name, self._file = name, Flatfile(content)
        self._widen()
        self._one_signature()

    def rename(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Names in the order of the numbers that the converter gave: args_0, args_1, ...; output_0, ..."""
        for entries, names in ((self._signature.inputs, inputs), (self._signature.outputs, outputs)):
            if len(entries) != len(names):
                raise SourceError(f"{self._name}: {len(entries)} tensors were converted, it has {', '.join(names)}")
            for entry, name in zip(sorted(entries, key=_number), _unique(names), strict=True):
                entry.name = name
        self._file.put_in_order(list(inputs), list(outputs))

    def content(self) -> bytes:
        return self._file.pack()

    def inputs(self) -> list[InputSpec]:
        return [
            InputSpec(as_text(entry.name), self._dtype(entry.tensorIndex), self._row(entry))
            for entry in self._signature.inputs
        ]

    def outputs(self) -> dict[str, tuple[int, ...]]:
        return {as_text(entry.name): self._row(entry) for entry in self._signature.outputs}

    def _dtype(self, index: int) -> str:
        return _DTYPES.get(int(self._file.tensor(index).type), "an unknown type")

    def _row(self, entry: schema.TensorMapT) -> tuple[int, ...]:
        """Its shape without rows, of which the file has one."""
        shape, name = self._file.shape(entry.tensorIndex), as_text(entry.name)
        signature = self._file.tensor(entry.tensorIndex).shapeSignature
        open_sizes = [] if signature is None else [int(size) for size in signature[1:] if size < 0]
        if not shape or shape[0] != 1 or open_sizes:
            found = shape if signature is None else tuple(int(size) for size in signature)
            raise SourceError(
                f"{self._name}: {name!r} has shape {list(found)}; convert it for one row: [1, ...], the rest fixed"
            )
        return shape[1:]

    def _widen(self) -> None:
        """Weights of 16 bits become 32, and the operators go that did so at run time."""
        kept, widened = [], set()
        for op, written in zip(self._file.operators(), self._file.graph.operators, strict=True):
            values = self._file.constant(op.inputs[0]) if op.name == "DEQUANTIZE" else None
            if values is None or values.dtype != np.float16:
                kept.append(written)
                continue
            self._file.model.buffers.append(schema.BufferT())
            self._file.tensor(op.outputs[0]).buffer = len(self._file.model.buffers) - 1
            self._file.set_constant(op.outputs[0], values.astype(np.float32))
            widened.add(op.inputs[0])
        self._file.graph.operators = kept
        for index in widened - {index for op in self._file.operators() for index in op.inputs}:
            # What nobody reads any more stays as a tensor of nothing: the others keep their numbers.
            self._file.set_constant(index, np.zeros(1, np.float16))
            self._file.tensor(index).shape = [1]

    def _one_signature(self) -> None:
        known = list(self._file.model.signatureDefs or [])
        if not known:
            known = [self._made()]
        if len(known) > 1:
            keys = [as_text(one.signatureKey) for one in known]
            if _SIGNATURE not in keys:
                raise SourceError(
                    f"{self._name} has the signatures {', '.join(keys)}; convert it with one of them alone"
                )
            known = [known[keys.index(_SIGNATURE)]]
        self._file.model.signatureDefs = known
        self._signature = known[0]
        names = [as_text(entry.name) for entry in self._signature.inputs]
        if sorted(entry.tensorIndex for entry in self._signature.inputs) != sorted(self._file.graph.inputs):
            raise SourceError(f"{self._name}: its signature ({', '.join(names)}) does not name all of its inputs")
        self._file.put_in_order(names, [as_text(entry.name) for entry in self._signature.outputs])

    def _made(self) -> schema.SignatureDefT:
        """A signature for a model that has none, by the names of its tensors."""
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = _SIGNATURE, 0
        made.inputs, made.outputs = self._entries(self._file.graph.inputs), self._entries(self._file.graph.outputs)
        return made

    def _entries(self, indices: Sequence[int]) -> list[schema.TensorMapT]:
        found = []
        names = _unique([_clean(as_text(self._file.tensor(index).name or "")) for index in indices])
        for index, name in zip(indices, names, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, int(index)
            found.append(entry)
        return found


def _clean(name: str) -> str:
    """A tensor's name as a person would say it: `serving_default_image:0` is `image`."""
    last: str = name.partition(";")[0].removeprefix("serving_default_").removeprefix("StatefulPartitionedCall/")
    return re.sub(r":\d+$", "", last) or "tensor"


def _unique(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        fresh, number = name, 1
        while fresh in taken:
            fresh, number = f"{name}_{number}", number + 1
        taken.append(fresh)
    return taken


def _number(entry: schema.TensorMapT) -> int:
    found = re.search(r"(\d+)$", as_text(entry.name))
    return int(found.group(1)) if found else 0
