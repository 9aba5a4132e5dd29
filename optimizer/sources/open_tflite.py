"""Opens a float .tflite, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from optimizer.passes import Inputs, Progress
from optimizer.sources.canonical import Canonical
from optimizer.sources.flat_file import check_content, check_tflite
from optimizer.sources.opened import manifest
from optimizer.sources.specs import SourceError, first_line
from optimizer.work_files import MODEL


def open_tflite(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source` becomes model.tflite with one signature, names for all inputs and outputs, float weights."""
    progress(0.0, "loading")
    path = inputs["source"]
    check_tflite(path)
    return keep(path.name, path.read_bytes(), out)


def keep(
    name: str, content: bytes, out: Path, inputs: Sequence[str] | None = None, outputs: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a float model in canonical form, once an interpreter takes it; returns the manifest of opening."""
    check_content(name, content)
    model = Canonical(name, content)
    if inputs is not None:
        model.rename(inputs, outputs)
    found = manifest("tflite", model.inputs(), model.outputs())
    made = model.content()
    try:
        Interpreter(model_content=made).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"{name} is refused by LiteRT: {first_line(error)}") from error
    (out / MODEL).write_bytes(made)
    return found
