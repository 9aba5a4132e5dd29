"""A trained Keras 2 model as a full-integer .tflite, its tensors called as in Keras 3."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from optimizer.errors import RefusedError
from optimizer.flatfile import Flatfile, is_float

_INTERFACES = {"int8": tf.int8, "uint8": tf.uint8, "float32": tf.float32}


def to_tflite(
    model: Any,
    inputs: list[tuple[str, tuple[int, ...], str]],
    outputs: list[str],
    weights: str,
    interface: tuple[str, str],
) -> bytes:
    """One row at a time. `inputs`: name, shape without rows and dtype in the model's order. Raises RefusedError."""
    with tempfile.TemporaryDirectory() as folder:
        _save(model, inputs, outputs, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type, converter.inference_output_type = (_INTERFACES[kind] for kind in interface)
        converter._experimental_disable_per_channel = weights == "per-tensor"
        try:
            content: bytes = converter.convert()
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            line = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error)[:200])
            raise RefusedError(f"the trained model cannot be converted to int8: {line[:300]}") from error
        _check(content, interface)
        return content


def _check(content: bytes, interface: tuple[str, str]) -> None:
    """The converter leaves what it cannot round as it is, and says nothing."""
    file = Flatfile(content)
    kinds = dict(zip(("inputs", "outputs"), interface, strict=True))
    free = {int(index) for side, kind in kinds.items() if kind == "float32" for index in getattr(file.graph, side)}
    stay = [
        one.name
        for one in file.operators()
        if any(index not in free and is_float(file.tensor(index)) for index in one.outputs)
    ]
    if stay:
        raise RefusedError(f"these operators of the trained model stay float: {', '.join(sorted(set(stay)))}")


def _save(model: Any, inputs: list[tuple[str, tuple[int, ...], str]], outputs: list[str], folder: Path) -> None:
    """As a saved model whose signature carries the names: the converter keeps them."""
    specs = [tf.TensorSpec((1, *shape), dtype, name) for name, shape, dtype in inputs]

    def serve(*given: Any) -> dict[str, Any]:
        found = model(list(given) if len(given) > 1 else given[0], training=False)
        return dict(zip(outputs, tf.nest.flatten(found), strict=True))

    module = tf.Module()
    module.model = model
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.serve)
