"""The calls of a Keras model in their order, nested models unrolled: what coupling is found from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from optimizer.errors import RefusedError

Shape = tuple[int | None, ...]


class Value(NamedTuple):
    """A tensor of the model: its number and its shape, the batch axis included."""

    number: int
    shape: Shape


class Call(NamedTuple):
    """One use of a layer (or of an operation like `a + b`).

    `path`: names of the models that hold it and its own, by which configurations are found again. `named`: the
    arguments by their names, with values in the place of tensors. A layer that is called twice appears twice.
    """

    path: tuple[str, ...]
    layer: Any
    inputs: tuple[Value, ...]
    named: Mapping[str, Any]
    outputs: tuple[Value, ...]


class Graph(NamedTuple):
    """`inputs` and `outputs` are the model's own."""

    calls: tuple[Call, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def graph_of(model: Any) -> Graph:
    """The graph of a built Functional or Sequential model. Raises RefusedError for anything else."""
    if not _functional(model):
        raise RefusedError(
            f"a {type(model).__name__} has no graph of layers to prune; build it with keras.Model(inputs, outputs)"
        )
    walk = _Walk()
    inputs = tuple(walk.value(tensor.shape) for tensor in model.inputs)
    outputs = walk.model(model, (), inputs)
    return Graph(tuple(walk.calls), inputs, outputs)


class _Walk:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._values = 0

    def value(self, shape: Shape) -> Value:
        self._values += 1
        return Value(self._values - 1, tuple(shape))

    def model(self, model: Any, path: tuple[str, ...], inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """Note every call inside of one call of `model`; returns its outputs."""
        inner = _functional(model)
        known = {id(tensor): value for tensor, value in zip(inner.inputs, inputs, strict=True)}
        for depth in sorted(inner._nodes_by_depth, reverse=True):
            for node in inner._nodes_by_depth[depth]:
                place = (*path, node.operation.name)
                if node.is_input:
                    value = known[id(node.outputs[0])]
                    self.calls.append(Call(place, node.operation, (value,), {}, (value,)))
                else:
                    results = self._call(node, place, known)
                    known |= {id(tensor): value for tensor, value in zip(node.outputs, results, strict=True)}
        return tuple(known[id(tensor)] for tensor in inner.outputs)

    def _call(self, node: Any, path: tuple[str, ...], known: dict[int, Value]) -> tuple[Value, ...]:
        inputs = tuple(known[id(tensor)] for tensor in node.input_tensors)
        if _functional(node.operation):
            return self.model(node.operation, path, inputs)
        outputs = tuple(self.value(tensor.shape) for tensor in node.outputs)
        self.calls.append(Call(path, node.operation, inputs, _named(node, known), outputs))
        return outputs


def _functional(model: Any) -> Any:
    """The functional graph of a model, or None."""
    found = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return found if hasattr(found, "_nodes_by_depth") and isinstance(model, keras.Model) else None


def _named(node: Any, known: dict[int, Value]) -> dict[str, Any]:
    def seen(part: Any) -> Any:
        return known[id(part)] if isinstance(part, keras.KerasTensor) else part

    args, kwargs = keras.tree.map_structure(seen, (node.arguments.args, node.arguments.kwargs))
    try:
        return dict(inspect.signature(node.operation.call).bind(*args, **kwargs).arguments)
    except TypeError:
        return {}
