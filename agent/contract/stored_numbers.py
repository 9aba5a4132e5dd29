"""PURE: requests that bring numbers as a model stores them, int8 already. No numpy.

Such a number means something only by the scale of the artifact that computes with it, and another version, or another
profile's artifact of the same version, has scales of its own. So they are taken where they can have one meaning only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.contract.tensors import Tensor, TensorSpec

# Types that a quantized model may store; real numbers of these types are better sent as FP32 too.
_SMALL = frozenset({"int8", "uint8", "int16"})


def possible(tensors: Iterable[Tensor]) -> bool:
    return any(tensor.dtype in _SMALL for tensor in tensors)


def fault(tensors: Iterable[Tensor], artifacts: Sequence[Sequence[TensorSpec]], only: int) -> str:
    """Why the tensors have no one meaning; empty where they have. `only`: the version that the caller asked for, 0 for
    none; `artifacts`: the inputs of each that may compute with them."""
    for tensor in tensors:
        found = {spec for inputs in artifacts for spec in inputs if spec.name == tensor.name}
        stored = {spec for spec in found if spec.dtype == tensor.dtype and spec.scale is not None}
        if stored and not only:
            return (
                f"input {tensor.name!r} comes in the type that the model stores, and each version has its own scale: "
                "send FP32, or ask versions/N/infer"
            )
        if stored and len(found) > 1:
            return (
                f"input {tensor.name!r} comes in the type that the model stores, and this version's artifacts have "
                "different scales: send FP32"
            )
    return ""


def common(artifacts: Sequence[Sequence[TensorSpec]]) -> dict[str, TensorSpec]:
    """The inputs that every artifact stores alike, by name, where they have a scale."""
    sides = [{spec.name: spec for spec in inputs} for inputs in artifacts]
    first = sides[0] if sides else {}
    return {
        name: spec
        for name, spec in first.items()
        if spec.scale is not None and all(side.get(name) == spec for side in sides)
    }
