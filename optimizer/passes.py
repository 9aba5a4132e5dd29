"""The passes: what each is called, which kind of zygote runs it, and the function that does it.

A pass is pure: files and settings in, files and a manifest out. Its function is

    (inputs: {role: path}, settings: {...}, out: folder, progress) -> manifest

It writes nothing but into `out`, keeps nothing, and gives the same for the same inputs, settings and tools: so what it
made is remembered by their digests (optimizer/cache.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

Progress = Callable[[float, str], None]
"""Fraction of the pass that is done, and what it is at."""
Inputs = Mapping[str, Path]
Work = Callable[[Inputs, dict[str, Any], Path, Progress], dict[str, Any]]
Kind = Literal["tensorflow", "legacy", "runtime", "quantizer", "torch", "onnx"]

# Kind of zygote -> what it imports once. The runtime's and the quantizer's never see TensorFlow; `legacy` is TensorFlow
# with Keras 2.
PRELOADS: dict[Kind, tuple[str, ...]] = {
    "tensorflow": ("numpy", "tensorflow", "keras"),
    "legacy": ("numpy", "tensorflow", "tf_keras", "keras", "tensorflow_model_optimization"),
    "runtime": ("numpy", "agent.runtime", "ai_edge_litert.interpreter", "optimizer.evaluate", "optimizer.pow2"),
    "quantizer": ("numpy", "optimizer.quantize_tflite"),
    "torch": ("numpy", "torch", "litert_torch"),
    "onnx": ("numpy", "torch", "litert_torch", "onnx", "onnx2torch"),
}
ENVIRONMENT: dict[Kind, dict[str, str]] = {"legacy": {"TF_USE_LEGACY_KERAS": "1"}}


class Pass(NamedTuple):
    kind: Kind
    function: str
    """module:function"""
    weight: float = 1.0
    """About how long it takes beside the others, so that one bar can show a whole run."""
    remembered: bool = True
    """Measurements of this host are not: they are made anew."""
    revision: int = 1
    """Grows when the same inputs give something else than before."""


PASSES: dict[str, Pass] = {
    "open-keras": Pass("tensorflow", "optimizer.sources.open_keras:open_keras", 0.5),
    "open-h5": Pass("tensorflow", "optimizer.sources.open_keras:open_h5", 0.5),
    "open-saved-model": Pass("tensorflow", "optimizer.sources.open_saved_model:open_saved_model", 0.5),
    "open-tflite": Pass("runtime", "optimizer.sources.open_tflite:open_tflite", 0.2),
    "open-torch": Pass("torch", "optimizer.sources.open_torch:open_torch", 2.0),
    "open-onnx": Pass("onnx", "optimizer.sources.open_onnx:open_onnx", 2.0),
    "dataset": Pass("runtime", "optimizer.dataset.step:prepare_data", 0.5),
    "inspect": Pass("tensorflow", "optimizer.inspect:inspect_source", 2.0),
    "inspect-tflite": Pass("runtime", "optimizer.inspect_tflite:inspect_tflite", 1.0),
    "distill": Pass("tensorflow", "optimizer.distill_step:distill_source", 15.0),
    "prune": Pass("tensorflow", "optimizer.prune.step:prune_source", 20.0, revision=2),
    "quantize": Pass("tensorflow", "optimizer.quantize:quantize_source", 2.0, revision=3),
    "sparsify": Pass("legacy", "optimizer.legacy.sparsify:sparsify_source", 15.0),
    "qat": Pass("legacy", "optimizer.legacy.qat:qat_source", 15.0),
    "quantize-saved-model": Pass("tensorflow", "optimizer.quantize_saved_model:quantize_saved_model", 2.0, revision=2),
    "quantize-tflite": Pass("quantizer", "optimizer.quantize_tflite:quantize_tflite", 1.0),
    "errors": Pass("runtime", "optimizer.layer_errors:find_errors", 2.0, revision=2),
    "power-of-two": Pass("runtime", "optimizer.pow2:rewrite_file", 0.5, revision=2),
    "evaluate": Pass("runtime", "optimizer.evaluate:evaluate_artifact", 1.0, remembered=False),
    "digits": Pass("tensorflow", "optimizer.digits:make_digits", 5.0, remembered=False),
}
