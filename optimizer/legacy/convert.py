"""A model of Keras 3 as one of Keras 2, and its trained weights back.

Neither reads the other's files, so the graph is followed call by call. Nested models are unrolled: what trains them
knows no models inside of models. Whether both answer alike is checked on rows, never assumed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from optimizer.data import Array
from optimizer.distill import call
from optimizer.legacy.fold import foldable, folded_weights
from optimizer.legacy.layers import CounterpartError, hand_over, layer_like
from optimizer.prune.graph import Call, Value, graph_of

TOLERANCE = 1e-4
"""Of the largest output: above it two models do not answer alike."""
_ROWS = 16


class Pair(NamedTuple):
    """A layer with weights: its place in the model, such as `block/dense`, and what it is in Keras 3 and in 2."""

    name: str
    modern: Any
    legacy: Any


class Counterpart(NamedTuple):
    """`model` of Keras 2 answers what `source` of Keras 3 does; `pairs` are the layers with weights of both."""

    source: Any
    model: Any
    pairs: tuple[Pair, ...]


def counterpart(source: Any, seed: int = 0, *, fold: bool = False) -> Counterpart:
    """The same model in Keras 2. Raises CounterpartError where a layer has none or the answers differ.

    With `fold`, batch normalization goes into the layers before it; then weights cannot be given back.
    """
    replay = _Replay(source, fold)
    model = replay.model()
    found = Counterpart(source, model, tuple(replay.pairs))
    for pair in found.pairs:
        if (norm := replay.folded.get(id(pair.modern))) is not None:
            pair.legacy.set_weights(folded_weights(pair.modern, norm))
        else:
            hand_over(pair.modern, pair.legacy)
    difference = apart(source, model, random_rows(source, seed))
    if not difference <= TOLERANCE:
        kinds = ", ".join(sorted({type(pair.modern).__name__ for pair in found.pairs}))
        raise CounterpartError(
            f"in Keras 2 the model answers otherwise ({difference:.1e} of its largest output; layers: {kinds})"
        )
    return found


def give_back(found: Counterpart, seed: int = 0) -> float:
    """Weights of the Keras 2 model to the Keras 3 one; returns how far their answers are apart.

    Raises CounterpartError where that is too far.
    """
    for pair in found.pairs:
        if not isinstance(pair.legacy, tf_keras.layers.Normalization):
            hand_over(pair.legacy, pair.modern)
    difference = apart(found.source, found.model, random_rows(found.source, seed))
    if not difference <= TOLERANCE:
        raise CounterpartError(f"back in Keras 3 the model answers otherwise ({difference:.1e} of its largest output)")
    return difference


def apart(modern: Any, legacy: Any, rows: tuple[Array, ...]) -> float:
    """The largest difference of any output, as a share of that output's largest magnitude (at least 1e-6)."""
    answers = (keras.tree.flatten(call(model, rows, False)) for model in (modern, legacy))
    worst = 0.0
    for left, right in zip(*answers, strict=True):
        a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
        worst = max(worst, float(np.abs(a - b).max() / max(1e-6, np.abs(a).max())))
    return worst


def random_rows(model: Any, seed: int) -> tuple[Array, ...]:
    """Rows of standard normal numbers for inputs of floats, of 0 and 1 for others, which every vocabulary has."""
    random = np.random.default_rng(seed)
    return tuple(
        random.normal(size=(_ROWS, *tensor.shape[1:])).astype(np.float32)
        if "float" in str(tensor.dtype)
        else random.integers(0, 2, (_ROWS, *tensor.shape[1:])).astype(str(tensor.dtype))
        for tensor in model.inputs
    )


class _Replay:
    """Does every call of a Keras 3 graph again, with layers of Keras 2."""

    def __init__(self, source: Any, fold: bool) -> None:
        self._source, self._graph = source, graph_of(source)
        self.folded = foldable(self._graph) if fold else {}
        self._gone = {id(norm) for norm in self.folded.values()}
        self._layers: dict[int, Any] = {}
        self._names: set[str] = set()
        self.pairs: list[Pair] = []

    def model(self) -> Any:
        """Inputs are called as in the source, and lie in its order."""
        inputs = [
            tf_keras.Input(tuple(tensor.shape[1:]), dtype=str(tensor.dtype), name=self._unique(tensor.name))
            for tensor in self._source.inputs
        ]
        known = {value.number: tensor for value, tensor in zip(self._graph.inputs, inputs, strict=True)}
        for one in self._graph.calls:
            if not isinstance(one.layer, keras.layers.InputLayer):
                results = tf.nest.flatten(self._again(one, known))
                known |= {value.number: tensor for value, tensor in zip(one.outputs, results, strict=True)}
        outputs = [known[value.number] for value in self._graph.outputs]
        return tf_keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=self._source.name)

    def _again(self, one: Call, known: dict[int, Any]) -> Any:
        if id(one.layer) in self._gone:
            return known[one.inputs[0].number]
        layer = self._layer(one)
        given = {name: _filled(part, known) for name, part in one.named.items() if _matters(part)}
        if type(one.layer).__module__.startswith("keras.src.ops."):
            return layer(_operands(one, known))
        first, *rest = given
        try:
            return layer(given[first], **{name: given[name] for name in rest})
        except (TypeError, ValueError) as error:
            kind = type(one.layer).__name__
            raise CounterpartError(f"layer {one.layer.name!r} ({kind}) cannot be called in Keras 2: {error}") from error

    def _layer(self, one: Call) -> Any:
        """The counterpart; the same one where a layer is called again."""
        known = self._layers.get(id(one.layer))
        if known is None:
            known = self._layers[id(one.layer)] = layer_like(
                one.layer, self._unique("_".join(one.path)), **self._changes(one)
            )
            if getattr(one.layer, "weights", ()):
                self.pairs.append(Pair("/".join(one.path), one.layer, known))
        return known

    def _changes(self, one: Call) -> dict[str, Any]:
        return {"use_bias": True} if id(one.layer) in self.folded else {}

    def _unique(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found


def _matters(part: Any) -> bool:
    """Whether an argument says anything: masks and modes that are left to Keras do not."""
    return not (part is None or part is False)


def _filled(part: Any, known: dict[int, Any]) -> Any:
    """The argument with tensors of Keras 2 in the place of values. A value is a named tuple, so it comes first."""
    if isinstance(part, Value):
        return known[part.number]
    if isinstance(part, list | tuple):
        return [_filled(one, known) for one in part]
    if isinstance(part, dict):
        return {name: _filled(one, known) for name, one in part.items()}
    return part


def _operands(one: Call, known: dict[int, Any]) -> list[Any]:
    """Both sides of an operation. Keras 2 layers want two tensors of one shape."""
    if len(one.named) != 2 or not all(isinstance(part, Value) for part in one.named.values()):
        kind = type(one.layer).__name__
        raise CounterpartError(f"operation {one.layer.name!r} ({kind}) has no counterpart in Keras 2; use a layer")
    return [known[part.number] for part in one.named.values()]
