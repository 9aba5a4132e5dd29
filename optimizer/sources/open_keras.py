"""Opens what Keras can load. Runs in a forked TensorFlow child."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras

from optimizer.passes import Inputs, Progress
from optimizer.sources.h5_file import check_h5
from optimizer.sources.keras_file import input_specs, load_source
from optimizer.sources.opened import manifest
from optimizer.sources.specs import SourceError, first_line
from optimizer.work_files import SOURCE


def open_keras(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a .keras file, is copied once it loads."""
    progress(0.0, "loading")
    shutil.copyfile(inputs["source"], out / SOURCE)
    return _opened(inputs["source"].name, out / SOURCE)


def open_h5(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, an .h5 file that its owner vouches for (setting `trust`), becomes a .keras file."""
    path = inputs["source"]
    check_h5(path, bool(settings.get("trust")))
    progress(0.0, "loading")
    with tempfile.TemporaryDirectory() as folder:
        # Keras goes by the ending.
        named = Path(folder) / "source.h5"
        named.symlink_to(path.absolute())
        try:
            model = keras.saving.load_model(named, compile=False)
        except Exception as error:  # whatever its layers raise
            raise SourceError(
                f"{path.name} cannot be loaded by Keras {keras.__version__}: {first_line(error)}"
            ) from error
    model.save(out / SOURCE)
    return _opened(path.name, out / SOURCE)


def _opened(name: str, path: Path) -> dict[str, Any]:
    try:
        model = load_source(path)
    except SourceError as error:
        raise SourceError(str(error).replace(path.name, name)) from error
    shapes = [tuple(int(size or 0) for size in tensor.shape[1:]) for tensor in model.outputs]
    return manifest("keras", input_specs(model), dict(zip(model.output_names, shapes, strict=True)))
