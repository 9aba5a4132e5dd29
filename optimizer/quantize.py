"""Conversion to integers by TensorFlow Lite's converter, after training. Runs in a forked child: conversion leaks.

int8 is done in two steps. The converter makes the float graph and notes in it the range of every tensor over the
calibration rows (smallest and largest value), of which that of scores is narrowed; then its quantizer makes that graph
int8, without the operators that are to stay float. Scheme: B. Jacob et al., arXiv 1712.05877.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.convert_phase import ConverterError

from optimizer.data import Splits
from optimizer.flatfile import Array, Flatfile
from optimizer.passes import Inputs, Progress
from optimizer.quantize_guard import check
from optimizer.quantize_names import WRAPPER, Named
from optimizer.quantize_options import ConversionError, Options, Sharing, options_from
from optimizer.settings import LIMITS
from optimizer.softmax_range import narrowed
from optimizer.sources import input_specs, load_source
from optimizer.unroll import unrolled
from optimizer.work_files import FLOAT, MODEL

_DTYPES = {"int8": tf.int8, "uint8": tf.uint8, "int16": tf.int16, "float32": tf.float32}
_OPERATORS = {
    "int8": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
    "int16x8": [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8],
}
# Where no integer form of an operator exists.
_FALLBACK = [tf.lite.OpsSet.TFLITE_BUILTINS]
_ERRORS = (ConverterError, RuntimeError, ValueError, tf.errors.OpError)


class Ports(NamedTuple):
    """Names of a model's inputs and outputs, in its order."""

    inputs: list[str]
    outputs: list[str]


class Made(NamedTuple):
    """An artifact; and, for scheme int8, the float graph that it was made from."""

    content: bytes
    floating: bytes | None
    kept: tuple[str, ...] = ()
    """Tensors written by the operators that stay float as asked."""


def quantize_source(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, calibrated on `data`, becomes model.tflite by the settings of Options, all optional; for
    scheme int8 float.tflite beside it."""
    options = options_from(settings)
    progress(0.0, "loading")
    model = load_source(inputs["source"])
    calibration = Splits(inputs["data"], input_specs(model)).calibration(LIMITS.calibration_rows)
    progress(0.2, f"converting with {len(next(iter(calibration.values())))} rows of calibration data")
    return written(made_from(model, calibration, options), options, out, progress)


def quantize(
    model: Any,
    calibration: dict[str, Array],
    *,
    weights: Sharing = "per-channel",
    interface: tuple[str, str] = ("int8", "int8"),
    **others: Any,
) -> bytes:
    """A .tflite for one row at a time, its tensors called as in Keras; `others` are further keys of Options.

    `calibration`: arrays (rows, ...) by input name, in the model's dtypes. Raises ConversionError.
    """
    options = options_from({"weights": weights, "input": interface[0], "output": interface[1], **others})
    made = made_from(model, calibration, options)
    check(made.content, options, made.kept)
    return made.content


def made_from(model: Any, calibration: dict[str, Array], options: Options) -> Made:
    """Of a Keras model. Raises ConversionError."""
    converter = tf.lite.TFLiteConverter.from_keras_model(_one_row(unrolled(model)))
    ports = Ports([tensor.name for tensor in model.inputs], list(model.output_names))
    return convert(converter, calibration, options, ports)


def convert(converter: Any, calibration: dict[str, Array], options: Options, ports: Ports) -> Made:
    """By a converter that was given a model and nothing else. Raises ConversionError."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    steps = {"int8": _int8, "int16x8": _int16x8, "float16": _float16, "dynamic": _dynamic}
    try:
        made = steps[options.scheme](converter, calibration, options, ports)
    except _ERRORS as error:
        raise ConversionError(f"the model cannot be converted to {options.scheme}: {_reason(error)}") from error
    return made._replace(content=_with_ports(made.content, ports))


def written(made: Made, options: Options, out: Path, progress: Progress) -> dict[str, Any]:
    """Check and write an artifact; returns the pass' manifest."""
    found = check(made.content, options, made.kept)
    (out / MODEL).write_bytes(made.content)
    if made.floating is not None:
        (out / FLOAT).write_bytes(made.floating)
    progress(1.0, f"{len(made.content)} bytes")
    return {
        "bytes": len(made.content),
        "scheme": options.scheme,
        "input": options.port(options.input),
        "output": options.port(options.output),
        "operators": found.operators,
        "float_operators": list(found.float_operators),
        "weight_bytes": found.weight_bytes,
    }


def _int8(converter: Any, calibration: dict[str, Array], options: Options, ports: Ports) -> Made:
    _calibrated_by(converter, calibration, options)
    converter._experimental_calibrate_only = True
    ranged: bytes = converter.convert()
    floating = _without_ranges(ranged, ports)
    kept = kept_tensors(floating, options.keep_float)
    content: bytes = mlir_quantize(
        narrowed(ranged, floating, calibration),
        disable_per_channel=options.weights == "per-tensor",
        disable_per_channel_for_dense_layers="per-tensor" in (options.weights, options.dense),
        input_data_type=_DTYPES[options.port(options.input)],
        output_data_type=_DTYPES[options.port(options.output)],
        denylisted_nodes=list(kept) or None,
    )
    return Made(content, floating, kept)


def _int16x8(converter: Any, calibration: dict[str, Array], options: Options, _: Ports) -> Made:
    _calibrated_by(converter, calibration, options)
    converter.inference_input_type = _DTYPES[options.port(options.input)]
    converter.inference_output_type = _DTYPES[options.port(options.output)]
    return Made(converter.convert(), None)


def _float16(converter: Any, calibration: dict[str, Array], options: Options, _: Ports) -> Made:
    converter.target_spec.supported_types = [tf.float16]
    return Made(converter.convert(), None)


def _dynamic(converter: Any, calibration: dict[str, Array], options: Options, _: Ports) -> Made:
    _shared_by(converter, options)
    return Made(converter.convert(), None)


def _calibrated_by(converter: Any, calibration: dict[str, Array], options: Options) -> None:
    converter.representative_dataset = lambda: _rows(calibration)
    converter.target_spec.supported_ops = _OPERATORS[options.scheme]
    if options.scheme == "int16x8" and options.mixed:
        converter.target_spec.supported_ops = _OPERATORS[options.scheme] + _FALLBACK
    _shared_by(converter, options)


def _shared_by(converter: Any, options: Options) -> None:
    converter._experimental_disable_per_channel = options.weights == "per-tensor"
    converter._experimental_disable_per_channel_quantization_for_dense_layers = "per-tensor" in (
        options.weights,
        options.dense,
    )


def kept_tensors(floating: bytes, names: tuple[str, ...]) -> tuple[str, ...]:
    """What the operators of these names write. Raises ConversionError for a name that the graph does not have."""
    named = Named(Flatfile(floating))
    tensors = {name: named.tensors(name) for name in names}
    unknown = [name for name, found in tensors.items() if found is None]
    if unknown:
        known = ", ".join(named.names[:40])
        raise ConversionError(f"keep_float: no operator is called {', '.join(map(repr, unknown))}; there are {known}")
    return tuple(tensor for found in tensors.values() for tensor in found or ())


def _with_ports(content: bytes, ports: Ports) -> bytes:
    file = Flatfile(content)
    file.rename_outputs(ports.outputs)
    file.put_in_order(*ports)
    return file.pack()


def _without_ranges(content: bytes, ports: Ports) -> bytes:
    """The plain float graph, its outputs called as the artifact's."""
    file = Flatfile(content)
    for tensor in file.graph.tensors:
        tensor.quantization = None
    return _with_ports(file.pack(), ports)


def _one_row(model: Any) -> Any:
    """The same model with a batch axis of 1: flattening is then a plain reshape, not a computed one."""
    inputs = [
        keras.Input(batch_shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs
    ]
    given: Any = inputs if len(inputs) > 1 else inputs[0]
    if (structure := getattr(model, "_inputs_struct", None)) is not None:  # a dictionary, perhaps
        given = keras.tree.pack_sequence_as(structure, inputs)
    return keras.Model(inputs, keras.tree.flatten(model(given)), name=WRAPPER)


def _rows(calibration: dict[str, Array]) -> Iterator[dict[str, Array]]:
    for row in range(len(next(iter(calibration.values())))):
        yield {name: array[row : row + 1] for name, array in calibration.items()}


def _reason(error: Exception) -> str:
    """The converter's messages are pages long: the line that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line or "not supported" in line or "Op" in line]
    return (telling or lines or [type(error).__name__])[0][:300]
