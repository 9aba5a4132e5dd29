"""What people call the operators of a converted graph: layer names, unique, the same for the same graph. No TensorFlow.

The converter leaves paths such as `lepta_1/net_1/conv_1/Relu;lepta_1/net_1/conv_1/convolution`: several of them
where operators were fused, and with a suffix where TensorFlow traced the model more than once.
"""

from __future__ import annotations

import re
from collections import Counter

from optimizer.flatfile import Flatfile, Operator, as_text

WRAPPER = "lepta"
"""Name of the model that conversion wraps around the user's: by it we know which part of a path is ours."""

_TELLING = re.compile(r"conv|depthwise|matmul|einsum|tensordot", re.IGNORECASE)
_SUFFIX = re.compile(r"_\d+$")


class Named:
    """The operators of a graph in execution order, with their names and the tensors that they write."""

    def __init__(self, file: Flatfile) -> None:
        self.operators: list[Operator] = list(file.operators())
        outputs = _outputs(file)
        plain = [_plain(file, op, outputs) for op in self.operators]
        self.names = _unique(plain, self.operators)
        self._tensors = [tuple(tensor_name(file, index) for index in op.outputs) for op in self.operators]

    def tensors(self, name: str) -> tuple[str, ...] | None:
        """The tensors that the operator of this name writes; None where there is none. A layer's name stands for its
        only operator, and a tensor's for the operator that writes it."""
        for known, written in zip(self.names, self._tensors, strict=True):
            if name == known or name in written:
                return written
        return None


def tensor_name(file: Flatfile, index: int) -> str:
    return as_text(file.tensor(index).name or "")


def _outputs(file: Flatfile) -> dict[int, str]:
    """The signature's names of what the graph gives."""
    return {entry.tensorIndex: as_text(entry.name) for one in file.model.signatureDefs or [] for entry in one.outputs}


def _plain(file: Flatfile, op: Operator, outputs: dict[int, str]) -> str:
    if not op.outputs:
        return op.name.lower()
    known = outputs.get(op.outputs[0])
    return known or layer_of(tensor_name(file, op.outputs[0])) or op.name.lower()


def layer_of(path: str) -> str:
    """The layer in a tensor's path: of the fused ones the one with weights; without the model's name and suffixes."""
    pieces = [piece for piece in path.split(";") if piece]
    if not pieces:
        return ""
    chosen = next((piece for piece in pieces if _TELLING.search(piece.rpartition("/")[2])), pieces[0])
    parts = chosen.split("/")
    ours = _SUFFIX.sub("", parts[0]) == WRAPPER
    if ours and parts[0] != WRAPPER:
        parts = [_SUFFIX.sub("", part) for part in parts]
    inner = parts[2 if ours else 0 :] or parts[-1:]
    return "/".join(inner[:-1] or inner)


def _unique(plain: list[str], operators: list[Operator]) -> list[str]:
    """A name that several have gets the operator's beside it, and a number where that is not enough."""
    shared = Counter(plain)
    kinds = [
        name if shared[name] == 1 else f"{name}/{op.name.lower()}" for name, op in zip(plain, operators, strict=True)
    ]
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind}/{seen[kind]}")
    return names
