"""PURE: which path asks for what; what is known of a model without asking its worker."""

from __future__ import annotations

from typing import Literal, NamedTuple

from agent import VERSION
from agent.contract.oip_names import FROM_NUMPY
from agent.contract.tensors import TensorSpec

Kind = Literal["server", "live", "ready", "model", "model ready", "infer"]


class Route(NamedTuple):
    kind: Kind
    model: str = ""
    version: str = ""
    """The one that is asked for; empty for the one that serves."""

    @property
    def method(self) -> bytes:
        return b"POST" if self.kind == "infer" else b"GET"


_FIXED: dict[str, Kind] = {"/v2": "server", "/v2/health/live": "live", "/v2/health/ready": "ready"}
_OF_A_MODEL: dict[str, Kind] = {"": "model", "ready": "model ready", "infer": "infer"}


def find(path: str) -> Route | None:
    """None: nothing is there."""
    if path in _FIXED:
        return Route(_FIXED[path])
    match path.split("/"):
        case ["", "v2", "models", model, *rest] if model:
            version = rest[1] if len(rest) > 1 and rest[0] == "versions" and rest[1] else ""
            kind = _OF_A_MODEL.get("/".join(rest[2:] if version else rest))
            return Route(kind, model, version) if kind else None
    return None


def server() -> dict[str, object]:
    return {"name": "lepta-agent", "version": VERSION, "extensions": ["binary_tensor_data"]}


def metadata(
    model: str, version: int, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> dict[str, object]:
    """What a caller has to send and gets. -1: rows."""
    return {
        "name": model,
        "versions": [str(version)],
        "platform": "tflite",
        "inputs": [_tensor(spec) for spec in inputs],
        "outputs": [_tensor(spec) for spec in outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, object]:
    """Users send and get real numbers where the artifact has scales that turn them into its own and back."""
    dtype = spec.dtype if spec.scale is None else "float32"
    return {"name": spec.name, "datatype": FROM_NUMPY[dtype], "shape": [-1, *spec.shape]}
