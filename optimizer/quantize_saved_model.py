"""Conversion of a SavedModel by its serving signature. Runs in a forked child: conversion leaks.

Its graph was checked when the source was opened (optimizer/sources): it does nothing but compute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from optimizer.data import Array, Splits
from optimizer.passes import Inputs, Progress
from optimizer.quantize import Made, Ports, convert, written
from optimizer.quantize_options import Options, options_from
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec, SourceError

_SIGNATURE = "serving_default"


class Serving(NamedTuple):
    """A signature, and the model that owns its variables. Names are sorted: a signature keeps no other order."""

    model: Any
    call: Any
    inputs: list[InputSpec]
    outputs: list[str]


def quantize_saved_model(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a folder, calibrated on `data`, becomes model.tflite; settings are those of `quantize`."""
    options = options_from(settings)
    progress(0.0, "loading")
    serving = load_serving(inputs["source"])
    calibration = Splits(inputs["data"], serving.inputs).calibration(LIMITS.calibration_rows)
    progress(0.2, f"converting with {len(next(iter(calibration.values())))} rows of calibration data")
    return written(saved_model_made(serving, calibration, options), options, out, progress)


def load_serving(folder: Path) -> Serving:
    """By the serving signature; every size but the rows must be known. Raises SourceError."""
    try:
        model = tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise SourceError(f"the SavedModel cannot be loaded: {str(error).splitlines()[0][:300]}") from error
    if _SIGNATURE not in model.signatures:
        known = ", ".join(model.signatures) or "none"
        raise SourceError(f"the SavedModel has no signature {_SIGNATURE}, it has {known}; export it with one")
    call = model.signatures[_SIGNATURE]
    specs = call.structured_input_signature[1]
    inputs = [InputSpec(name, specs[name].dtype.name, _shape(name, specs[name])) for name in sorted(specs)]
    return Serving(model, call, inputs, sorted(call.structured_outputs))


def saved_model_made(serving: Serving, calibration: dict[str, Array], options: Options) -> Made:
    """Raises ConversionError."""

    def answer(**given: Any) -> Any:
        return serving.call(**given)

    row = {spec.name: tf.TensorSpec((1, *spec.shape), spec.dtype, name=spec.name) for spec in serving.inputs}
    one_row = tf.function(answer, autograph=False).get_concrete_function(**row)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([one_row], serving.model)
    ports = Ports([spec.name for spec in serving.inputs], serving.outputs)
    return convert(converter, calibration, options, ports)


def _shape(name: str, spec: Any) -> tuple[int, ...]:
    """Without rows, which must come first."""
    shape = spec.shape.as_list() if spec.shape.rank else []
    if not shape or any(size is None for size in shape[1:]) or shape[0] not in (None, 1):
        raise SourceError(f"input {name!r} has shape {spec.shape}; rows come first, every other size must be fixed")
    return tuple(int(size) for size in shape[1:])
