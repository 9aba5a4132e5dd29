"""Opens a program of torch.export, by litert-torch. Runs in a forked child that never saw TensorFlow."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import litert_torch
import torch

from optimizer.passes import Inputs, Progress
from optimizer.sources.open_tflite import keep
from optimizer.sources.specs import SourceError, first_line
from optimizer.sources.torch_file import SAMPLES, check_torch


def open_torch(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass: `source`, a .pt2 file, becomes a float model.tflite."""
    path = inputs["source"]
    check_torch(path, bool(settings.get("trust")))
    progress(0.1, "loading")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "program.pt2"
        _without_samples(path, plain)
        try:
            program = torch.export.load(plain)
        except Exception as error:  # whatever PyTorch makes of it
            raise SourceError(
                f"{path.name} cannot be loaded by torch {torch.__version__}: {first_line(error)}"
            ) from error
        progress(0.3, "converting")
        content = converted(path.name, program, Path(folder))
    signature = program.graph_signature
    return keep(path.name, content, out, _names(signature.user_inputs), _names(signature.user_outputs))


def converted(name: str, program: Any, folder: Path) -> bytes:
    """The float .tflite of an exported program, for one row."""
    rows = tuple(_sample(name, program, key) for key in program.graph_signature.user_inputs)
    made = folder / "made.tflite"
    try:
        litert_torch.convert(program.module(), rows).export(str(made))
    except Exception as error:  # the converter raises whatever it meets
        raise SourceError(f"{name} cannot be converted by litert-torch: {first_line(error)}") from error
    return made.read_bytes()


def _sample(name: str, program: Any, key: Any) -> Any:
    """Zeros of one row for an input."""
    node = next((node for node in program.graph.nodes if node.op == "placeholder" and node.name == key), None)
    value = None if node is None else node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise SourceError(f"{name}: input {key!r} is no tensor; export a program that takes tensors alone")
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    if not sizes or sizes[0] not in (1, None) or None in sizes[1:]:
        raise SourceError(f"{name}: input {key!r} has shape {list(value.shape)}; export it for one row, the rest fixed")
    return torch.zeros([1, *sizes[1:]], dtype=value.dtype)


def _names(given: Any) -> list[str]:
    return [str(name) for name in given]


def _without_samples(path: Path, out: Path) -> None:
    """A copy without the sample inputs, which PyTorch would unpickle."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            sample = PurePosixPath(*PurePosixPath(entry.filename).parts[1:]).as_posix() == SAMPLES
            target.writestr(entry.filename, b"" if sample else source.read(entry))
