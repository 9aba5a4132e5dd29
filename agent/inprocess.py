"""An artifact inside one's own process: `from agent import Runtime`.

    model = Runtime("digits.tflite")
    scores = model.infer({"image": image})["scores"]      # real numbers in and out, rows first

The same code as in an agent's worker, so the answers are those of a device with the same interpreter, bit by bit. No
agent, broker or controller is needed, and nothing is swapped: that is what the agent's local endpoint is for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent import runtime
from agent.contract.dequantize import real
from agent.contract.tensors import TensorSpec
from agent.runtime import Array, ModelError, RuntimeUnavailable

__all__ = ["ModelError", "Runtime", "RuntimeUnavailable", "TensorSpec"]


class Runtime:
    """One loaded artifact. Not for several threads at once: give each its own, or a lock.

    `artifact`: the bytes of a .tflite, or its path; `threads`: of the interpreter; `runtimes`: families that may run
    it, best first ("ai-edge-litert", "tflite-runtime"), all that are installed by default.

    Raises RuntimeUnavailable where no such family is installed, ModelError for bytes that are no usable model, OSError
    for a file that cannot be read.
    """

    def __init__(
        self, artifact: bytes | str | os.PathLike[str], *, threads: int = 1, runtimes: Sequence[str] | None = None
    ) -> None:
        content = artifact if isinstance(artifact, bytes) else Path(artifact).read_bytes()
        self._model = runtime.load(content, runtimes=runtimes or runtime.FAMILIES, threads=threads)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, stored dtype, shape without rows, and scale of each input."""
        return self._model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._model.outputs

    @property
    def name(self) -> str:
        """What computes, such as "ai-edge-litert 2.3.0, XNNPACK"."""
        return self._model.runtime

    @property
    def delegated(self) -> bool:
        """Does XNNPACK compute at least a part of the graph?"""
        return self._model.delegated

    @property
    def operators(self) -> tuple[str, ...]:
        """Builtin operators of the graph, sorted."""
        return self._model.operators

    def infer(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Compute any number of rows: arrays of shape (rows, *shape) by name, float32 of the same rows by name back.

        Real numbers are quantized by the artifact's own scales; an array that has the stored dtype already goes in as
        it is. Raises ModelError with `who="user"` for wrong names, shapes or values.
        """
        return runtime.predict(self._model, {name: np.asarray(array) for name, array in inputs.items()})

    def invoke(self, stored: Mapping[str, Array]) -> dict[str, Array]:
        """Compute in stored dtypes, without scales: what `quantize` gives in, what `dequantize` takes out."""
        return self._model.invoke(stored)

    def quantize(self, name: str, real: npt.ArrayLike) -> Array:
        """Input `name` as it is stored: round(real / scale) + zero point, saturated."""
        return runtime.stored(self._spec(self.inputs, name), np.asarray(real))

    def dequantize(self, name: str, stored: Array) -> Array:
        """Output `name` in real numbers: (stored - zero point) * scale, as float32."""
        return real(self._spec(self.outputs, name), stored)

    def _spec(self, specs: tuple[TensorSpec, ...], name: str) -> TensorSpec:
        found = next((spec for spec in specs if spec.name == name), None)
        if found is None:
            names = [spec.name for spec in specs]
            raise ModelError(f"there is no tensor {name!r} here; there are {', '.join(names)}", "user")
        return found
