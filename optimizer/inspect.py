"""The float model in TensorFlow: its size, its accuracy, and the golden sets that its outputs make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from optimizer.data import Array
from optimizer.inspect_parts import FloatModel, batches, inspect_model
from optimizer.macs import of_keras, of_tflite
from optimizer.passes import Inputs, Progress
from optimizer.sources import InputSpec, SourceError, input_specs, load_source
from optimizer.sources.specs import first_line

_BATCH = 128
_SIGNATURE = "serving_default"


def inspect_source(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs `source` (a `.keras` file, or the folder of a SavedModel), `data`, and `acceptance` from the
    model's first version, if any; settings `labels`, `seed`, and `splits`: which to score, see inspect_model.
    """
    progress(0.0, "loading")
    path = inputs["source"]
    model: FloatModel = _SavedModel(path) if path.is_dir() else _Keras(path)
    return inspect_model(model, inputs, settings, out, progress)


class _Keras:
    def __init__(self, path: Path) -> None:
        self._model = load_source(path)
        self.inputs = input_specs(self._model)
        shapes = (tuple(int(size or 0) for size in tensor.shape[1:]) for tensor in self._model.outputs)
        self.outputs = dict(zip(self._model.output_names, shapes, strict=True))
        self.parameters = int(self._model.count_params())
        self.macs = of_keras(self._model.layers)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = [inputs[spec.name] for spec in self.inputs]
        given = arrays if len(arrays) > 1 else arrays[0]
        found = keras.tree.flatten(self._model.predict(given, batch_size=_BATCH, verbose=0))
        return dict(zip(self.outputs, (np.asarray(array, np.float32) for array in found), strict=True))


class _SavedModel:
    """Its signature `serving_default`. Parameters and MACs are those of its float .tflite form."""

    def __init__(self, path: Path) -> None:
        try:
            # Whatever holds the variables has to stay, or they are gone.
            self._loaded = tf.saved_model.load(str(path))
            content = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[_SIGNATURE]).convert()
        except (OSError, RuntimeError, ValueError, KeyError, tf.errors.OpError) as error:
            raise SourceError(f"the SavedModel cannot be loaded and converted: {first_line(error)}") from error
        if _SIGNATURE not in self._loaded.signatures:
            known = ", ".join(self._loaded.signatures) or "none"
            raise SourceError(f"the SavedModel has no signature {_SIGNATURE}, it has {known}; export it with one")
        self._signature = self._loaded.signatures[_SIGNATURE]
        given: dict[str, Any] = self._signature.structured_input_signature[1]
        self.inputs = [
            InputSpec(name, spec.dtype.name, _fixed(name, spec.shape)) for name, spec in sorted(given.items())
        ]
        self._rows = min(_BATCH, *(int(spec.shape[0] or _BATCH) for spec in given.values()), _BATCH)
        made = self._signature.structured_outputs
        # A signature has no order; all passes go by the names'.
        self.outputs = {name: tuple(int(size or 0) for size in made[name].shape[1:]) for name in sorted(made)}
        self.parameters, self.macs = of_tflite(content)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(iter(inputs.values())))
        parts = [
            self._answer({name: array[part] for name, array in inputs.items()}) for part in batches(rows, self._rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = self._signature(**{name: tf.constant(array) for name, array in inputs.items()})
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise SourceError(f"the SavedModel fails on the data: {first_line(error)}") from error
        return {name: np.asarray(found[name], np.float32) for name in self.outputs}


def _fixed(name: str, shape: Any) -> tuple[int, ...]:
    if shape.rank is None or any(size is None for size in shape[1:]):
        raise SourceError(f"input {name!r} has shape {shape}; every size but the first must be fixed")
    return tuple(int(size) for size in shape[1:])
