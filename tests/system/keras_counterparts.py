"""Says as JSON how models of Keras 3 fare in Keras 2. A process of its own: both live in it."""

from __future__ import annotations

import json
import sys
from typing import Any

import keras

from optimizer.errors import RefusedError
from optimizer.legacy.convert import apart, counterpart, give_back, random_rows
from tests import prune_zoo as zoo

layers = keras.layers
NAMES = ("mlp", "residual", "mobile", "dense_net", "generator", "gru", "recurrent", "attention", "nested")


def shared() -> Any:
    """Two inputs, one layer for both, two outputs; a sum written as such."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    same = layers.Dense(5, "relu", name="same")
    flow = same(a) + same(b)
    return keras.Model([a, b], [layers.Dense(2, name="left")(flow), layers.Dense(1, name="right")(flow)])


def main() -> None:
    told: dict[str, Any] = {}
    for name in (*NAMES, "shared", "waves", "masked_tokens"):
        model = zoo.built(shared if name == "shared" else getattr(zoo, name))
        try:
            found = counterpart(model)
        except RefusedError as error:
            told[name] = {"refused": str(error)}
            continue
        there = apart(model, found.model, random_rows(model, 7))
        for pair in found.pairs:
            pair.legacy.set_weights([weight * 0.5 for weight in pair.legacy.get_weights()])
        told[name] = {"there": there, "back": give_back(found), "outputs": len(found.model.outputs)}
        try:
            told[name]["folded"] = apart(model, counterpart(model, fold=True).model, random_rows(model, 8))
        except RefusedError as error:
            told[name]["folded"] = str(error)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
