"""Full-integer int8 conversion by TensorFlow Lite's converter. Runs in a forked child: conversion leaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from optimizer.data import Splits
from optimizer.errors import RefusedError
from optimizer.flatfile import Array, Flatfile
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import input_specs, load_source
from optimizer.unroll import unrolled
from optimizer.work_files import MODEL

_INTERFACES = {"int8": tf.int8, "uint8": tf.uint8, "float32": tf.float32}


class ConversionError(RefusedError):
    """A model that the converter cannot bring to full-integer int8."""


def quantize_source(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, calibrated on `data`, becomes model.tflite with the `weights` and interfaces wanted."""
    progress(0.0, "loading")
    model = load_source(inputs["source"])
    splits = Splits(inputs["data"], input_specs(model))
    calibration = splits.calibration(LIMITS.calibration_rows)
    progress(0.2, f"converting with {len(next(iter(calibration.values())))} rows of calibration data")
    content = quantize(
        model,
        calibration,
        weights=settings["weights"],
        interface=(settings["input"], settings["output"]),
    )
    (out / MODEL).write_bytes(content)
    progress(1.0, f"{len(content)} bytes")
    return {"bytes": len(content)}


def quantize(
    model: Any,
    calibration: dict[str, Array],
    *,
    weights: Literal["per-channel", "per-tensor"],
    interface: tuple[str, str] = ("int8", "int8"),
) -> bytes:
    """A full-integer int8 .tflite for one row at a time, its tensors called as in Keras.

    `calibration`: float32 arrays (rows, ...) by input name. Raises ConversionError.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(_one_row(unrolled(model)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _rows(calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = (_INTERFACES[kind] for kind in interface)
    converter._experimental_disable_per_channel = weights == "per-tensor"
    try:
        content: bytes = converter.convert()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise ConversionError(f"the model cannot be converted to full-integer int8: {_reason(error)}") from error
    file = Flatfile(content)
    file.rename_outputs(list(model.output_names))
    return file.pack()


def _one_row(model: Any) -> Any:
    """The same model with a batch axis of 1: flattening is then a plain reshape, not a computed one."""
    inputs = [
        keras.Input(batch_shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs
    ]
    return keras.Model(inputs, model(inputs if len(inputs) > 1 else inputs[0]))


def _rows(calibration: dict[str, Array]) -> Iterator[dict[str, Array]]:
    for row in range(len(next(iter(calibration.values())))):
        yield {name: array[row : row + 1] for name, array in calibration.items()}


def _reason(error: Exception) -> str:
    """The converter's messages are pages long: the line that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line or "not supported" in line or "Op" in line]
    return (telling or lines or [type(error).__name__])[0][:300]
