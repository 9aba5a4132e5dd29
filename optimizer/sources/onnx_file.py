"""An .onnx file, read as bytes: standard operators only, and all numbers inside of the file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from optimizer.settings import LIMITS
from optimizer.sources.specs import SourceError
from optimizer.sources.wire import WireError, fields, inside, texts

_STANDARD = {"", "ai.onnx"}
# Field numbers of ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto.
_GRAPH, _SETS, _TRAINING, _FUNCTIONS = 7, 8, 20, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_OP, _ATTRIBUTE, _DOMAIN = 4, 5, 7
_TENSORS, _GRAPHS, _SPARSES = (5, 10), (6, 11), (22, 23)
_EXTERNAL, _LOCATION = 13, 14


def check_onnx(path: Path) -> None:
    """Refuse operators from elsewhere, functions of its own, and numbers that lie in other files."""
    size = path.stat().st_size
    if size > LIMITS.source_bytes:
        raise SourceError(f"{path.name} has {size} bytes; at most {LIMITS.source_bytes} are taken")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            _check_model(path.name, memoryview(whole[:]))
    except WireError as error:
        raise SourceError(f"{path.name} is damaged: {error}; export the model again") from error


def _check_model(name: str, content: memoryview) -> None:
    numbers = {field.number for field in fields(content)}
    if _TRAINING in numbers or _FUNCTIONS in numbers:
        what = "training steps" if _TRAINING in numbers else "functions of its own"
        raise SourceError(f"{name} holds {what}; export the model for inference, with standard operators only")
    for domain in texts(content, _SETS, 1):
        if domain not in _STANDARD:
            raise SourceError(f"{name} needs operators of {domain!r}; only ONNX's own are known to Lepta")
    for graph in inside(content, _GRAPH):
        _check_graph(name, graph, 0)


def _check_graph(name: str, graph: memoryview, depth: int) -> None:
    if depth > LIMITS.config_depth:
        raise SourceError(f"{name} is nested more than {LIMITS.config_depth} deep")
    for tensor in _stored(graph):
        _check_tensor(name, tensor)
    for node in inside(graph, _NODE):
        domains = [domain for domain in texts(node, _DOMAIN) if domain not in _STANDARD]
        if domains:
            op = " ".join(texts(node, _OP))
            raise SourceError(f"{name} needs {op} of {domains[0]!r}; only ONNX's own operators are known to Lepta")
        for attribute in inside(node, _ATTRIBUTE):
            _check_attribute(name, attribute, depth)


def _check_attribute(name: str, attribute: memoryview, depth: int) -> None:
    for number in _TENSORS:
        for tensor in inside(attribute, number):
            _check_tensor(name, tensor)
    for number in _SPARSES:
        for sparse in inside(attribute, number):
            for tensor in _halves(sparse):
                _check_tensor(name, tensor)
    for number in _GRAPHS:
        for graph in inside(attribute, number):
            _check_graph(name, graph, depth + 1)


def _stored(graph: memoryview) -> Iterator[memoryview]:
    yield from inside(graph, _INITIALIZER)
    for sparse in inside(graph, _SPARSE):
        yield from _halves(sparse)


def _halves(sparse: memoryview) -> Iterator[memoryview]:
    """Values and indices of a sparse tensor."""
    yield from inside(sparse, 1)
    yield from inside(sparse, 2)


def _check_tensor(name: str, tensor: memoryview) -> None:
    if any(field.number == _EXTERNAL or (field.number == _LOCATION and field.value) for field in fields(tensor)):
        raise SourceError(f"{name} keeps its numbers in other files; save it as one file: onnx.save(onnx.load(x), y)")
