"""Quantization-aware training: the model learns with the rounding of int8 in its way (arXiv 1712.05877)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from optimizer.errors import RefusedError
from optimizer.legacy.convert import counterpart
from optimizer.legacy.export import to_tflite
from optimizer.legacy.fake import calibrate, quantized
from optimizer.legacy.rows import lesson
from optimizer.legacy.tune import Hooks, scorer, thin_dropout, tune
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import load_source
from optimizer.tuning import Tuning
from optimizer.work_files import MODEL

Kind = Literal["int8", "uint8", "float32"]


class Qat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the pass: what the artifact looks like, and how it is trained."""

    weights: Literal["per-channel", "per-tensor"] = "per-channel"
    input: Kind = "int8"
    output: Kind = "int8"
    tuning: Tuning = Tuning(epochs=2, batch=128, rate=2e-4, dropout=0.0)


def qat_source(inputs: Inputs, given: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source` becomes model.tflite, full-integer int8, trained on `data`.

    It is taught by `teacher`, or by the source itself; labels are used where there are any. Settings are those of Qat.
    Raises RefusedError naming the layers that cannot be trained so.
    """
    started = time.monotonic()
    progress(0.0, "loading")
    settings = _read(given)
    source = load_source(inputs["source"])
    teacher = load_source(inputs["teacher"]) if "teacher" in inputs else source
    taught = lesson(source, teacher, inputs["data"], settings.tuning)
    legacy = counterpart(source, fold=True).model
    thin_dropout(legacy, settings.tuning.dropout)
    before = scorer(legacy, taught.check)()
    model = quantized(legacy, settings.weights)
    progress(0.1, "calibrating")
    calibrate(model, tuple(part[: LIMITS.calibration_rows] for part in taught.train.inputs))
    untrained = scorer(model, taught.check)()
    tuned = tune(model, taught, settings.tuning, lambda done, said: progress(0.1 + 0.7 * done, said), Hooks())
    progress(0.8, "converting")
    content = to_tflite(model, _specs(source), list(source.output_names), settings.weights, _interface(settings))
    (out / MODEL).write_bytes(content)
    progress(1.0, f"{len(content)} bytes")
    return {
        **tuned._asdict(),
        "accuracy_float": before,
        "accuracy_before": untrained,
        "bytes": len(content),
        "wall_s": time.monotonic() - started,
    }


def _read(given: dict[str, Any]) -> Qat:
    try:
        return msgspec.convert(given, Qat)
    except msgspec.ValidationError as error:
        raise RefusedError(f"settings of quantization-aware training: {error}") from error


def _interface(settings: Qat) -> tuple[str, str]:
    return settings.input, settings.output


def _specs(source: Any) -> list[tuple[str, tuple[int, ...], str]]:
    return [(tensor.name, tuple(tensor.shape[1:]), str(tensor.dtype)) for tensor in source.inputs]
