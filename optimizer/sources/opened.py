"""What opening a source says of it: the manifest that every `open-...` pass gives.

`kind` says how it goes on: "keras" (model.keras), "saved-model" (the folder saved_model) or "tflite" (model.tflite).
`inputs` are as in InputSpec, `outputs` have name and shape without rows; `classes` is 0 where the output is not one
score per class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from optimizer.sources.specs import InputSpec, SourceError


def manifest(
    kind: Literal["keras", "saved-model", "tflite"], inputs: Iterable[InputSpec], outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Raises SourceError for inputs that are no numbers."""
    specs = list(inputs)
    for spec in specs:
        if not spec.dtype.startswith(("float", "int", "uint", "bool")):
            raise SourceError(f"input {spec.name!r} takes {spec.dtype}; models whose inputs are numbers can be shrunk")
    if not specs or not outputs:
        raise SourceError("the model has no inputs or no outputs that are known by name")
    return {
        "kind": kind,
        "inputs": [{**spec._asdict(), "shape": list(spec.shape)} for spec in specs],
        "outputs": [{"name": name, "shape": list(shape)} for name, shape in outputs.items()],
        "classes": _classes(list(outputs.values())),
    }


def _classes(shapes: list[tuple[int, ...]]) -> int:
    return max(2, shapes[0][0]) if len(shapes) == 1 and len(shapes[0]) == 1 else 0
