"""A .tflite in LiteRT whose tensors inside can be read as real numbers. For analysis: agents serve by agent.runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from optimizer.flatfile import Array
from optimizer.sources import InputSpec

_PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class Traced:
    """`every`: keeps what each operator writes, which needs memory, and operators without a delegate."""

    def __init__(self, content: bytes, *, every: bool = False) -> None:
        self._interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=every,
            experimental_op_resolver_type=_PLAIN if every else OpResolverType.AUTO,
        )
        self._interpreter.allocate_tensors()
        signatures = list(self._interpreter._get_full_signature_list().values())
        self._names: dict[int, str] = {}
        for side in ("inputs", "outputs") if signatures else ():
            self._names |= {index: name for name, index in signatures[0][side].items()}

    def specs(self) -> list[InputSpec]:
        """Its inputs as a source's: by their clean names, without the axis of rows."""
        return [
            InputSpec(self._name(port), np.dtype(port["dtype"]).name, tuple(int(size) for size in port["shape"][1:]))
            for port in self._interpreter.get_input_details()
        ]

    def port_names(self) -> dict[int, str]:
        """Clean names of inputs and outputs by tensor."""
        return dict(self._names)

    def outputs(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Real numbers (rows, ...) by output name."""
        ports = {self._name(port): port for port in self._interpreter.get_output_details()}
        return self._run(rows, ports)

    def tensors(self, rows: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
        """Real numbers of the tensors of these names, as far as there are any; needs `every`."""
        wanted = set(names)
        details = {detail["name"]: detail for detail in self._interpreter.get_tensor_details()}
        return self._run(rows, {name: detail for name, detail in details.items() if name in wanted})

    def _run(self, rows: Mapping[str, Array], read: Mapping[str, Any]) -> dict[str, Array]:
        found: dict[str, list[Array]] = {name: [] for name in read}
        for row in range(len(next(iter(rows.values())))):
            for port in self._interpreter.get_input_details():
                given = rows[self._name(port)][row : row + 1]
                self._interpreter.set_tensor(port["index"], _stored(port, given))
            self._interpreter.invoke()
            for name, detail in read.items():
                found[name].append(_real(detail, self._interpreter.get_tensor(detail["index"])))
        return {name: np.stack(parts) for name, parts in found.items()}

    def _name(self, port: Mapping[str, Any]) -> str:
        return self._names.get(port["index"], str(port["name"]))


def _stored(port: Mapping[str, Any], array: Array) -> Array:
    scale, zero_point = port["quantization"]
    if not scale or array.dtype == port["dtype"]:
        return array.astype(port["dtype"])
    limits = np.iinfo(port["dtype"])
    stored: Array = np.clip(np.round(array / np.float32(scale)) + zero_point, limits.min, limits.max)
    return stored.astype(port["dtype"])


def _real(detail: Mapping[str, Any], array: Array) -> Array:
    scale, zero_point = detail["quantization"]
    real: Array = (array.astype(np.float32) - zero_point) * scale if scale else array.astype(np.float32)
    return real
