"""Models that only benchmarks need."""

from __future__ import annotations

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.builders import CLASSES
from tests.flatgraph import LINEAR_SCALE, Graph

_CHANNELS = 256


def heavy(layers: int) -> bytes:
    """An int8 network with much work and many weights per byte of input.

    16 x 16 x 3 goes through `layers` convolutions of 256 channels: 0.6 MB and 151 million MACs each.
    """
    graph = Graph(seed=4)
    x = flow = graph.tensor("x", (1, 16, 16, 3), scale=LINEAR_SCALE)
    for layer in range(layers):
        flow = graph.conv(f"conv{layer}", flow, _CHANNELS, (3, 3))
    weights = graph.random.normal(size=(CLASSES, _CHANNELS))
    logits = graph.dense("logits", graph.mean("mean", flow), weights, np.zeros(CLASSES), scale=LINEAR_SCALE * 4)
    return graph.finish({"x": x}, {"scores": graph.softmax("scores", logits)})


def variant(content: bytes, number: int) -> bytes:
    """The same model with another digest."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.description = f"variant {number}"
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
