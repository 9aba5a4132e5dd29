"""Quantization of a float .tflite after training, without TensorFlow: by litert-quantizer, once ai-edge-quantizer.

The only file that imports it. It says nothing when it leaves a model as it was: what it made is checked.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from litert_quantizer import qtyping
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.calibrator import Calibrator
from litert_quantizer.quantizer import Quantizer
from litert_quantizer.recipe_manager import RecipeManager

from optimizer.data import Splits
from optimizer.flatfile import Array, Flatfile, as_text
from optimizer.interfaces import with_uint8
from optimizer.passes import Inputs, Progress
from optimizer.quantize_guard import check
from optimizer.quantize_names import Named
from optimizer.quantize_options import ConversionError, Options, options_from
from optimizer.settings import LIMITS
from optimizer.sources.canonical import Canonical
from optimizer.sources.specs import first_line
from optimizer.work_files import FLOAT, MODEL

_ALL = qtyping.TFLOperationName.ALL_SUPPORTED
_EVERYWHERE = ".*"
_PER_TENSOR, _PER_CHANNEL = qtyping.QuantGranularity.TENSORWISE, qtyping.QuantGranularity.CHANNELWISE
_ACTIVATION_BITS = {"int8": 8, "int16x8": 16}


def quantize_tflite(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a float model.tflite as opening makes it, calibrated on `data`, becomes model.tflite by the
    settings of Options, all optional; for scheme int8 float.tflite beside it."""
    options = options_from(settings)
    source = inputs["source"].read_bytes()
    progress(0.1, "reading calibration data")
    model = Canonical(inputs["source"].name, source)
    calibration = Splits(inputs["data"], model.inputs()).calibration(LIMITS.calibration_rows)
    progress(0.3, f"converting with {len(next(iter(calibration.values())))} rows of calibration data")
    kept = _kept(source, options.keep_float)
    content = quantize(source, calibration, options)
    found = check(content, options, kept)
    (out / MODEL).write_bytes(content)
    if options.scheme == "int8":
        (out / FLOAT).write_bytes(source)
    progress(1.0, f"{len(content)} bytes")
    return {
        "bytes": len(content),
        "scheme": options.scheme,
        "input": options.port(options.input),
        "output": options.port(options.output),
        "operators": found.operators,
        "float_operators": list(found.float_operators),
        "weight_bytes": found.weight_bytes,
    }


def quantize(source: bytes, calibration: dict[str, Array], options: Options) -> bytes:
    """`source` in the numbers of `options`, its tensors called as before.

    `calibration`: arrays (rows, ...) by the signature's input names. Raises ConversionError.
    """
    try:
        with _silent():
            content = _quantized(source, calibration, options)
    except ConversionError:
        raise
    except Exception as error:  # the library raises whatever it meets
        raise ConversionError(f"the model cannot be brought to {options.scheme}: {first_line(error)}") from error
    return _finished(source, content, options)


def _quantized(source: bytes, calibration: dict[str, Array], options: Options) -> bytes:
    quantizer = Quantizer(source)
    _recipe(quantizer, options)
    for name in _kept(source, options.keep_float):
        quantizer.update_quantization_recipe(f"(^|;){re.escape(name)};", _ALL, algorithm_key=AlgorithmName.NO_QUANTIZE)
    ranges = None
    if quantizer.need_calibration:
        ranges = _ranges(source, quantizer, calibration)
    made = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    if made.quantized_model is None:
        raise ConversionError(f"scheme {options.scheme} gave nothing")
    return bytes(made.quantized_model)


def _ranges(source: bytes, quantizer: Any, calibration: dict[str, Array]) -> Any:
    """The smallest and largest value of every tensor over all rows; the library's own way is a moving average, which
    forgets the rows that came first."""
    (signature,) = Flatfile(source).model.signatureDefs
    recipe = RecipeManager()
    recipe.load_quantization_recipe(quantizer.get_quantization_recipe())
    calibrator = Calibrator(source, num_threads=1, qsv_update_func=_widest)
    calibrator.calibrate({as_text(signature.signatureKey): _rows(calibration)}, recipe)
    return calibrator.get_model_qsvs()


def _widest(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {**now, "min": np.minimum(before["min"], now["min"]), "max": np.maximum(before["max"], now["max"])}


def _recipe(quantizer: Any, options: Options) -> None:
    """The operators of `options.scheme`, dense layers by their own sharing, and the interface."""
    sharing = _sharing(options.weights)
    dense = _sharing("per-tensor" if "per-tensor" in (options.weights, options.dense) else "per-channel")
    connected = qtyping.TFLOperationName.FULLY_CONNECTED
    if options.scheme == "float16":
        halves = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(weight_tensor_config=halves)
        quantizer.update_quantization_recipe(_EVERYWHERE, _ALL, config, AlgorithmName.FLOAT_CASTING)
    elif options.scheme == "dynamic":
        quantizer.add_dynamic_config(_EVERYWHERE, _ALL, 8, sharing)
        quantizer.add_dynamic_config(_EVERYWHERE, connected, 8, dense)
    else:
        bits = _ACTIVATION_BITS[options.scheme]
        quantizer.add_static_config(_EVERYWHERE, _ALL, bits, 8, sharing)
        quantizer.add_static_config(_EVERYWHERE, connected, bits, 8, dense)
        for port, wanted in (
            (qtyping.TFLOperationName.INPUT, options.input),
            (qtyping.TFLOperationName.OUTPUT, options.output),
        ):
            if options.port(wanted) == "float32":
                quantizer.update_quantization_recipe(_EVERYWHERE, port, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _sharing(given: str) -> Any:
    return _PER_TENSOR if given == "per-tensor" else _PER_CHANNEL


def _finished(source: bytes, content: bytes, options: Options) -> bytes:
    if len(content) >= len(source):
        raise ConversionError(
            f"scheme {options.scheme} made the file no smaller ({len(source)} bytes before, {len(content)} after)"
        )
    file = Flatfile(content)
    if options.scheme == "int8":
        with_uint8(file, inputs=options.input == "uint8", outputs=options.output == "uint8")
    return file.pack()


def _kept(source: bytes, names: tuple[str, ...]) -> tuple[str, ...]:
    """What the operators of these names write. Raises ConversionError for a name that the graph does not have."""
    if not names:
        return ()
    named = Named(Flatfile(source))
    tensors = {name: named.tensors(name) for name in names}
    unknown = [name for name, found in tensors.items() if found is None]
    if unknown:
        known = ", ".join(named.names[:40])
        raise ConversionError(f"keep_float: no operator is called {', '.join(map(repr, unknown))}; there are {known}")
    return tuple(tensor for found in tensors.values() for tensor in found or ())


def _rows(calibration: dict[str, Array]) -> list[dict[str, Array]]:
    rows = len(next(iter(calibration.values())))
    return [{name: array[row : row + 1] for name, array in calibration.items()} for row in range(rows)]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The library draws progress bars and warns of what is meant."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
