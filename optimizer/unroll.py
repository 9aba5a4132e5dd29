"""Recurrent layers as plain steps: the TensorFlow Lite converter crashes on their loops when it makes them int8."""

from __future__ import annotations

from typing import Any

from optimizer.prune.surgery import copy_of, layers_of

_RECURRENT = ("SimpleRNN", "GRU", "LSTM")


def unrolled(model: Any) -> Any:
    """The same model with every recurrent layer unrolled over its steps, or `model` itself where it has none.

    Weights and answers are the same; the graph grows with the number of steps.
    """
    places = {path: found for path, layer in layers_of(model) if (found := _places(layer))}
    if not places:
        return model
    copy = copy_of(model, {path: dict.fromkeys(found, True) for path, found in places.items()})
    copy.set_weights(model.get_weights())
    return copy


def _places(layer: Any) -> list[tuple[str, ...]]:
    """Where in the layer's configuration it says whether to unroll."""
    if type(layer).__name__ in _RECURRENT:
        return [("unroll",)]
    inner = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
    if all(type(one).__name__ in _RECURRENT for one in inner):
        return [("layer", "config", "unroll"), ("backward_layer", "config", "unroll")]
    return []
