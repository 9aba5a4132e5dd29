"""The functions by which a SavedModel saves and restores its variables: only the checkpoint that they are given."""

from __future__ import annotations

from typing import NamedTuple

from optimizer.sources.saved_model_ops import SAVER
from optimizer.sources.specs import SourceError
from optimizer.sources.wire import inside, texts

SAVERS = ("__inference__traced_save", "__inference__traced_restore")
_PREFIX = "file_prefix"
_CALLER = "saver_filename"
# NodeDef: name, operation, inputs.
_NAME, _OP, _INPUT = 1, 2, 3
# Which inputs of an operation are a file's name.
_FILES = {"SaveV2": (0,), "RestoreV2": (0,), "ShardedFilename": (0,), "MergeV2Checkpoints": (0, 1), "StringJoin": (0,)}


class Node(NamedTuple):
    name: str
    op: str
    inputs: tuple[str, ...]


def node_of(content: memoryview) -> Node:
    """What comes twice is read by its last: joined, it is nothing that is known."""
    name, op = (" and ".join(texts(content, number)) for number in (_NAME, _OP))
    return Node(name, op, tuple(texts(content, _INPUT)))


def check_saver(name: str, function: memoryview) -> None:
    """Every file that the function names begins with what its caller gave. Raises SourceError."""
    nodes = {found.name: found for found in map(node_of, inside(function, 3))}
    used = [node for node in nodes.values() if node.op in SAVER]
    strange = [node for node in used if not all(_given(nodes, _input(node, at), 0) for at in _FILES.get(node.op, ()))]
    if strange or b".." in bytes(function):
        raise SourceError(f"{name} would save or restore files beside its own checkpoint; export the model again")


def check_caller(name: str, caller: Node, nodes: dict[str, Node]) -> None:
    """The main graph may call them with the name that TensorFlow feeds when it loads the model, and no other."""
    given = nodes.get(_CALLER)
    if _input(caller, 0) != _CALLER or given is None or given.op != "Placeholder":
        raise SourceError(f"{name} would save or restore files when it is loaded; export the model again")


def _given(nodes: dict[str, Node], source: str, depth: int) -> bool:
    """Whether a file's name comes from the function's first argument."""
    node = nodes.get(source.partition(":")[0])
    if node is None:
        return source == _PREFIX
    if depth > len(nodes):
        return False
    if node.op == "Pack":
        files = [one for one in node.inputs if not one.startswith("^")]
        return bool(files) and all(_given(nodes, one, depth + 1) for one in files)
    return node.op in ("ShardedFilename", "StringJoin", "Identity") and _given(nodes, _input(node, 0), depth + 1)


def _input(node: Node, at: int) -> str:
    return node.inputs[at] if at < len(node.inputs) else ""
