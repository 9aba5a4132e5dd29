"""Opens a SavedModel: a copy of it is checked, and loaded. Runs in a forked TensorFlow child."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from optimizer.passes import Inputs, Progress
from optimizer.sources.opened import manifest
from optimizer.sources.saved_model import check_saved_model, unpack
from optimizer.sources.specs import InputSpec, SourceError, first_line
from optimizer.work_files import SAVED_MODEL

SIGNATURE = "serving_default"


def open_saved_model(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a folder or a zip of one, becomes the folder saved_model."""
    progress(0.0, "loading")
    folder, name = out / SAVED_MODEL, inputs["source"].name
    unpack(inputs["source"], folder)
    check_saved_model(folder, name)
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # whatever TensorFlow makes of it
        shutil.rmtree(folder)
        raise SourceError(f"{name} cannot be loaded by TensorFlow {tf.__version__}: {first_line(error)}") from error
    if SIGNATURE not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise SourceError(f"{name} has no signature {SIGNATURE}, it has {known}; export it by model.export('folder')")
    signature = loaded.signatures[SIGNATURE]
    given: dict[str, Any] = signature.structured_input_signature[1]
    specs = [InputSpec(key, spec.dtype.name, _fixed(name, key, spec.shape)) for key, spec in sorted(given.items())]
    made = signature.structured_outputs
    outputs = {key: tuple(int(size or 0) for size in tensor.shape[1:]) for key, tensor in sorted(made.items())}
    return manifest("saved-model", specs, outputs)


def _fixed(name: str, key: str, shape: Any) -> tuple[int, ...]:
    if shape.rank is None or shape.rank == 0 or any(size is None for size in shape[1:]):
        raise SourceError(f"{name}: input {key!r} has shape {shape}; every size but the first must be fixed")
    return tuple(int(size) for size in shape[1:])
