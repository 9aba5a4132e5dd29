"""Two models with the same input and output, 40 kB and 4 MB: what the swaps of the benchmark go between."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.flatgraph import Graph

FEATURES, CLASSES = 784, 10
SMALL, LARGE = (48,), (2000, 1200)
"""Hidden layers: 38,000 and 4,000,000 weights of one byte."""


@cache
def network(hidden: tuple[int, ...]) -> bytes:
    """An int8 network of dense layers with random weights; input `x` (784,), output `scores` (10,)."""
    graph = Graph(seed=5)
    x = flow = graph.tensor("x", (1, FEATURES), scale=8 / 255)
    for layer, units in enumerate((*hidden, CLASSES)):
        weights = graph.random.normal(scale=flow.shape[1] ** -0.5, size=(units, flow.shape[1]))
        flow = graph.dense(f"dense{layer}", flow, weights, np.zeros(units), scale=8 / 255)
    return graph.finish({"x": x}, {"scores": flow})
