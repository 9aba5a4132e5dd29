"""Cuts a model: layers of fewer channels by their configurations, weights sliced, nothing else touched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from optimizer.data import Array
from optimizer.errors import StepError
from optimizer.prune.coupling import Coupling, Kept, Record
from optimizer.prune.labels import Labels
from optimizer.prune.site import Weight


def cut(model: Any, coupling: Coupling, kept: Kept) -> Any:
    """A new model with only the classes in `kept` (bool by class); `model` stays as it is.

    Nested models, names and shared layers stay. With everything kept, weights and outputs are the same bit by bit.
    Raises StepError where Keras builds other shapes than were cut: a mistake of a rule.
    """
    smaller = copy_of(model, {} if kept.all() else _new_sizes(coupling, kept))
    layers = dict(layers_of(smaller))
    for record in coupling.records:
        if record.weights:
            _fill(layers[record.path], record, kept)
    return smaller


def copy_of(model: Any, sizes: dict[tuple[str, ...], dict[tuple[str, ...], int]] | None = None) -> Any:
    """A model from the configuration of `model` with other sizes by path and place; its weights are fresh."""
    config = unbuilt(keras.saving.serialize_keras_object(model))
    for path, entry in _configs(config, ()):
        for place, size in (sizes or {}).get(path, {}).items():
            _set(entry["config"], place, size)
    return revived(config, model)


def revived(config: dict[str, Any], model: Any) -> Any:
    """A model by its configuration, its layers of the classes that those of `model` have, registered or not."""
    own = {type(layer).__name__: type(layer) for _, layer in layers_of(model) if not _of_keras(layer)}
    return keras.saving.deserialize_keras_object(config, custom_objects=own)


def weights_cut(record: Record, kept: Kept) -> list[Array]:
    """The weights of a layer without what is not kept."""
    return [
        _sliced(np.asarray(value), weight, kept)
        for value, weight in zip(record.layer.get_weights(), record.weights, strict=True)
    ]


def masked_weights(record: Record, kept: Kept) -> list[Array]:
    """The weights of a layer that hears nothing of what is not kept: the same model as the cut one, uncut.

    Exact but for layers that mix all channels of a tensor (LayerNormalization, RMSNormalization).
    """
    found = []
    for value, weight in zip(record.layer.get_weights(), record.weights, strict=True):
        masked = np.array(value)
        for at, axis in enumerate(weight.axes):
            if axis is not None and axis.role in ("takes", "both"):
                np.moveaxis(masked, at, 0)[~kept[axis.labels]] = 0
        found.append(masked)
    return found


def layers_of(model: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every layer by the names of the models that hold it, nested ones unrolled."""
    for layer in model.layers:
        place = (*path, layer.name)
        yield place, layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer, place)


def unbuilt(value: Any) -> Any:
    """The configuration without the shapes on which layers were built, and without how the model was compiled."""
    if isinstance(value, dict):
        left_out = ("build_config", "build_input_shape", "compile_config")
        return {name: unbuilt(part) for name, part in value.items() if name not in left_out}
    return [unbuilt(part) for part in value] if isinstance(value, list) else copy.deepcopy(value)


def models_in(config: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The configurations of a serialized model and of those nested in it, by the names that lead to them."""
    return ((path, part) for path, part in _configs(config, ()) if "layers" in part["config"])


def _configs(config: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    yield path, config
    for entry in config["config"].get("layers", []):
        yield from _configs(entry, (*path, entry["config"]["name"]))


def _new_sizes(coupling: Coupling, kept: Kept) -> dict[tuple[str, ...], dict[tuple[str, ...], int]]:
    return {
        record.path: {place: _count(labels, kept) for place, labels in record.sizes.items()}
        for record in coupling.records
    }


def _set(config: dict[str, Any], place: tuple[str, ...], size: int) -> None:
    """A number becomes `size`; the last of a shape does, unless it is to be worked out (-1)."""
    *above, name = place
    for step in above:
        config = config[step]
    value = config.get(name)
    if isinstance(value, list | tuple):
        config[name] = [*value[:-1], size if value[-1] not in (None, -1) else value[-1]]
    elif value is None:
        config[name] = [size]
    else:
        config[name] = size


def _of_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.src.")


def _fill(layer: Any, record: Record, kept: Kept) -> None:
    values = weights_cut(record, kept)
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if shapes != [value.shape for value in values]:
        cut_to = [value.shape for value in values]
        raise StepError(f"pruning cut the weights of {'/'.join(record.path)} to {cut_to}, Keras built {shapes}")
    layer.set_weights(values)


def _sliced(value: Array, weight: Weight, kept: Kept) -> Array:
    for at, axis in enumerate(weight.axes):
        if axis is not None:
            value = np.compress(kept[axis.labels], value, at)
    if weight.root_of is not None and not kept[weight.root_of].all():
        value = value * np.sqrt(kept[weight.root_of].mean(), dtype=value.dtype)
    return value


def _count(labels: Labels, kept: Kept) -> int:
    return int(np.count_nonzero(kept[labels]))
