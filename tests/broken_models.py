"""Models that pass every check with good manners and then fail on the device, made without TensorFlow.

Each is a sound float classifier, input `x` (16,), output `scores` (4,), for inputs between -2 and 2, which golden sets
hold. An input of 100 makes it misbehave.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.builders import CLASSES, FEATURES
from tests.flatgraph import Graph, Ref

GENTLE = {"x": np.linspace(-2, 2, FEATURES, dtype=np.float32).reshape(1, -1)}
PROVOKING = {"x": np.full((1, FEATURES), 100, np.float32)}


@cache
def answers_nan() -> bytes:
    """NaN: the root of what is below zero."""
    graph = Graph(seed=11)
    x = _input(graph)
    left = _binary(graph, "SUB", "left", graph.constant("ten", np.full((1, 1), 10, np.float32)), x.at)
    root = graph.tensor("root", (1, FEATURES), "float32")
    graph.operator("SQRT", [left.at], [root.at])
    return graph.finish({"x": x}, {"scores": _dense(graph, root)})


@cache
def fails() -> bytes:
    """An error of the interpreter: it looks beyond the end of a table."""
    graph = Graph(seed=12)
    x = _input(graph)
    whole = graph.tensor("whole", (1, FEATURES), "int32")
    graph.operator("CAST", [x.at], [whole.at], schema.CastOptionsT())
    place = _binary(graph, "MUL", "place", whole.at, whole.at, "int32")  # At most 4 in a golden set.
    table = graph.constant("table", np.arange(8, dtype=np.float32))
    looked = graph.tensor("looked", (1, FEATURES), "float32")
    graph.operator("GATHER", [table, place.at], [looked.at], schema.GatherOptionsT())
    return graph.finish({"x": x}, {"scores": _dense(graph, _binary(graph, "ADD", "sum", x.at, looked.at))})


@cache
def hangs() -> bytes:
    """A loop that never ends: while the greatest input is above ten, go on."""
    graph = Graph(seed=13)
    condition = _above_ten(graph)
    value, same = graph.tensor("value", (), "float32"), graph.tensor("same", (), "float32")
    graph.operator("MUL", [value.at, graph.constant("one", np.array(1, np.float32))], [same.at], schema.MulOptionsT())
    return _looping(graph, condition, graph.part([value], [same]))


@cache
def crashes_loading() -> bytes:
    """A loop whose body is that same loop: the interpreter runs out of stack while it is loaded."""
    graph = Graph(seed=14)
    condition = _above_ten(graph)
    value, after = graph.tensor("value", (), "float32"), graph.tensor("after", (), "float32")
    graph.operator("WHILE", [value.at], [after.at], _while(condition, 2))
    return _looping(graph, condition, graph.part([value], [after]))


def _above_ten(graph: Graph) -> int:
    value, verdict = graph.tensor("value", (), "float32"), graph.tensor("verdict", (), "bool")
    ten = graph.constant("ten", np.array(10, np.float32))
    graph.operator("GREATER", [value.at, ten], [verdict.at], schema.GreaterOptionsT())
    return graph.part([value], [verdict])


def _looping(graph: Graph, condition: int, body: int) -> bytes:
    """A classifier with a loop over its greatest input."""
    x = _input(graph)
    greatest, after = graph.tensor("greatest", (), "float32"), graph.tensor("after", (), "float32")
    axes = graph.constant("axes", np.array([0, 1], np.int32))
    graph.operator("REDUCE_MAX", [x.at, axes], [greatest.at], schema.ReducerOptionsT())
    graph.operator("WHILE", [greatest.at], [after.at], _while(condition, body))
    return graph.finish({"x": x}, {"scores": _dense(graph, _binary(graph, "ADD", "sum", x.at, after.at))})


def _input(graph: Graph) -> Ref:
    return graph.tensor("x", (1, FEATURES), "float32")


def _binary(graph: Graph, operator: str, name: str, a: int, b: int, dtype: str = "float32") -> Ref:
    out = graph.tensor(name, (1, FEATURES), dtype)
    options = {"SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT, "ADD": schema.AddOptionsT}[operator]()
    graph.operator(operator, [a, b], [out.at], options)
    return out


def _while(condition: int, body: int) -> schema.WhileOptionsT:
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = condition, body
    return options


def _dense(graph: Graph, x: Ref) -> Ref:
    kernel = graph.constant("kernel", graph.random.normal(size=(CLASSES, FEATURES)).astype(np.float32))
    bias = graph.constant("bias", np.zeros(CLASSES, np.float32))
    scores = graph.tensor("scores", (1, CLASSES), "float32")
    graph.operator("FULLY_CONNECTED", [x.at, kernel, bias], [scores.at], schema.FullyConnectedOptionsT())
    return scores
