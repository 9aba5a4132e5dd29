"""The user's model: a Keras 3 `.keras` file. Refused by what stands in it first; loaded afterwards, in a forked child.

Keras' own safe mode has been passed by more than once, so only known kinds of classes reach it at all.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optimizer.settings import LIMITS
from optimizer.sources.archive import check_bounds, check_whole, opened
from optimizer.sources.specs import InputSpec, SourceError, first_line

# Keras modules whose classes only compute. `keras.utils`, `keras.saving` and others hold functions with effects.
_MODULES = (
    "keras",
    "keras.layers",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.activations",
)
_INNER = (
    "keras.src.models.",
    "keras.src.layers.",
    "keras.src.ops.",
    "keras.src.initializers.",
    "keras.src.activations.",
)
_RUN_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"}
# Plain values that Keras writes as objects.
_VALUES = {
    "__keras_tensor__",
    "__tensor__",
    "__numpy__",
    "__tuple__",
    "__ellipsis__",
    "__complex__",
    "__bytes__",
    "__slice__",
}


def check_keras(path: Path) -> None:
    """Refuse anything but a whole `.keras` archive of known classes, without loading it."""
    with opened(path) as archive:
        config, metadata = _members(path, archive)
    version = str(metadata.get("keras_version", ""))
    if not version.startswith("3."):
        raise SourceError(f"{path.name} was saved by Keras {version or 'unknown'}; load and save it with Keras 3")
    for found in _objects(config, 0):
        _check_object(path, found)


def load_source(path: Path) -> Any:
    """Load a checked model: a built Keras model with inputs of known sizes. Imports Keras."""
    import keras

    check_keras(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers raise
        raise SourceError(f"{path.name} cannot be loaded by Keras {keras.__version__}: {first_line(error)}") from error
    if not getattr(model, "inputs", None) or not model.outputs:
        raise SourceError(f"{path.name} has no known inputs; build the model on its input shape before saving it")
    for tensor in model.inputs:
        if any(size is None for size in tensor.shape[1:]):
            raise SourceError(
                f"input {tensor.name!r} has shape {list(tensor.shape)}; every size but the first must be fixed"
            )
    if isinstance(model, keras.Sequential):  # which has no names of outputs
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def input_specs(model: Any) -> list[InputSpec]:
    return [InputSpec(t.name, str(t.dtype), tuple(int(size) for size in t.shape[1:])) for t in model.inputs]


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[Any, dict[str, Any]]:
    names = check_bounds(path, archive)
    if not {"config.json", "metadata.json", "model.weights.h5"} <= names:
        found = ", ".join(sorted(names)[:5]) or "no files"
        raise SourceError(f"{path.name} is not a Keras 3 model: it has {found}; save it by model.save('x.keras')")
    check_whole(path, archive)
    if archive.getinfo("config.json").file_size > LIMITS.config_bytes:
        raise SourceError(f"{path.name} has a config.json of more than {LIMITS.config_bytes} bytes")
    return _json(path, archive, "config.json"), _json(path, archive, "metadata.json")


def _json(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        found = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path.name}: {name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path.name}: {name} is not a JSON object")
    return found


def _objects(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Every serialized object of a configuration. How it was compiled is never loaded, so it may hold anything."""
    if depth > LIMITS.config_depth:
        raise SourceError(f"the model's configuration is nested more than {LIMITS.config_depth} deep")
    if isinstance(value, Mapping):
        if "class_name" in value:
            yield value
        for key, inner in value.items():
            if key != "compile_config":
                yield from _objects(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner, depth + 1)


def _check_object(path: Path, found: Mapping[str, Any]) -> None:
    name, module = str(found["class_name"]), str(found.get("module"))
    registered = found.get("registered_name")
    if name in _RUN_CODE:
        raise SourceError(
            f"{path.name} holds a {name} layer, which runs code from the file; replace it by layers of Keras"
        )
    if name in _VALUES:
        return
    known = module in _MODULES or module.startswith(_INNER)
    if not known or (registered is not None and registered != name):
        raise SourceError(
            f"{path.name} uses {registered or name} of {module}, which is not part of Keras; use layers of Keras only"
        )
