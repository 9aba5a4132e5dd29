"""One layer of Keras 3 as a layer of Keras 2: by its configuration and its weights."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import tf_keras

from optimizer.errors import RefusedError

# Operations on two tensors, such as `a + b`, that are layers in Keras 2.
_MERGES = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}
# Where Keras 3 calls a setting otherwise.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
_NEEDLESS = {"registered_name", "build_config", "build_input_shape"}


class CounterpartError(RefusedError):
    """A model of Keras 3 that Keras 2 cannot stand in for."""


def layer_like(layer: Any, name: str, **changes: Any) -> Any:
    """A layer of Keras 2 with the settings of `layer`, but for `changes`; its weights are still to come.

    Raises CounterpartError.
    """
    kind = type(layer).__name__
    own = getattr(tf_keras.layers, kind, None)
    if own is None or not type(layer).__module__.startswith("keras.src."):
        raise CounterpartError(f"layer {layer.name!r} is a {kind}, which Keras 2 has not")
    if kind == "Normalization":
        return _normalization(layer, name)
    if type(layer).__module__.startswith("keras.src.ops."):
        if kind not in _MERGES:
            raise CounterpartError(f"operation {layer.name!r} ({kind}) has no counterpart in Keras 2; use a layer")
        return own(name=name)
    settings = {**_settings(layer, own), "name": name, **changes}
    try:
        return own(**settings)
    except Exception as error:  # Keras raises whatever its layers raise
        raise CounterpartError(f"layer {layer.name!r} ({kind}) has no counterpart in Keras 2: {error}") from error


def hand_over(source: Any, target: Any) -> None:
    """Weights of one layer to its counterpart, either way."""
    if isinstance(target, tf_keras.layers.Normalization):
        return
    values = source.get_weights()
    wanted = [tuple(weight.shape) for weight in target.weights]
    if [value.shape for value in values] != wanted:
        raise CounterpartError(
            f"layer {source.name!r} ({type(source).__name__}) has weights of shapes "
            f"{[value.shape for value in values]}, in the other Keras {wanted}"
        )
    target.set_weights(values)


def _settings(layer: Any, own: Any) -> dict[str, Any]:
    known, kind = _parameters(own), type(layer).__name__
    found = {}
    for key, value in layer.get_config().items():
        place = _RENAMED.get((kind, key), key)
        if key.endswith("_initializer") or key in _NEEDLESS:
            continue
        if key in ("layer", "backward_layer"):
            found[key] = layer_like(_inner(layer, key), value["config"]["name"])
        elif key == "dtype":
            found[key] = _policy(layer, value)
        elif place in known:
            found[place] = _plain(value)
        elif value not in (None, False, 0) and value != _default(layer, key):
            raise CounterpartError(f"setting {key}={value!r} of layer {layer.name!r} ({kind}) is not known to Keras 2")
    return found


def _inner(layer: Any, key: str) -> Any:
    """The layer that a wrapper wraps: Bidirectional calls its own otherwise than its configuration does."""
    if key == "backward_layer":
        return layer.backward_layer
    return layer.forward_layer if hasattr(layer, "forward_layer") else layer.layer


def _policy(layer: Any, value: Any) -> str:
    name = value["config"]["name"] if isinstance(value, dict) else str(value)
    if "float8" in name or "int8" in name or "int4" in name:
        raise CounterpartError(f"layer {layer.name!r} is already quantized ({name}); give the float model")
    return str(name)


def _plain(value: Any) -> Any:
    """Regularizers, constraints and functions as Keras 2 reads them: by name and settings."""
    if isinstance(value, dict) and "class_name" in value:
        if value["class_name"] == "function":
            return value["config"]
        return {"class_name": value["class_name"], "config": _plain(value.get("config") or {})}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _parameters(own: Any) -> set[str]:
    """Names of the settings that a class of layers takes, those of its bases included."""
    names = {"trainable", "name", "dtype", "zero_output_for_mask"}
    for base in own.__mro__:
        if "__init__" in vars(base):
            names |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return names - {"self", "args", "kwargs"}


def _default(layer: Any, key: str) -> Any:
    for base in type(layer).__mro__:
        known = inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {}
        if key in known:
            return known[key].default
    return None


def _normalization(layer: Any, name: str) -> Any:
    """With what it has learned as settings: Keras 2 keeps a count beside that cannot be known."""
    axis = layer.get_config()["axis"]
    mean, variance = (np.asarray(part, np.float32) for part in (layer.mean, layer.variance))
    flat = (mean.reshape(-1), variance.reshape(-1)) if mean.size > 1 else (float(mean.item()), float(variance.item()))
    return tf_keras.layers.Normalization(axis=axis, mean=flat[0], variance=flat[1], invert=layer.invert, name=name)
