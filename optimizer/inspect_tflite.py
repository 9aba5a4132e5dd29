"""A float .tflite as the source: its size, its accuracy and its golden sets, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.data import Array
from optimizer.evaluate import load_artifact, predict
from optimizer.inspect_parts import inspect_model
from optimizer.macs import of_tflite
from optimizer.passes import Inputs, Progress
from optimizer.sources import InputSpec

_RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def inspect_tflite(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs and settings are those of `inspect`; `source` is a .tflite file."""
    progress(0.0, "loading")
    return inspect_model(_Tflite(inputs["source"]), inputs, settings, out, progress)


class _Tflite:
    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self._model = load_artifact(content, _RUNTIMES, 1)
        self.inputs = [InputSpec(spec.name, spec.dtype, spec.shape) for spec in self._model.inputs]
        self.outputs = {spec.name: spec.shape for spec in self._model.outputs}
        self.parameters, self.macs = of_tflite(content)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.asarray(array, np.float32) for name, array in predict(self._model, inputs).items()}
