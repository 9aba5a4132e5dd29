"""Which kind of model a file is, by what stands in it; its name decides nothing."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Literal

from optimizer.sources.archive import opened
from optimizer.sources.specs import SourceError
from optimizer.sources.wire import WireError, fields

Kind = Literal["keras", "h5", "saved-model", "tflite", "torch", "onnx"]

SAVED_MODEL = "saved_model.pb"
TAKEN = "Lepta takes .keras, SavedModel (a folder or a .zip of one), .tflite, .h5, .pt2 (torch.export) and .onnx"
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# Fields of ONNX's ModelProto; 7 is the graph, 8 the operator sets.
_ONNX = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_ONNX_NEEDED = {7, 8}
_TORCH_HINT = "save the program: torch.export.save(torch.export.export(model.eval(), inputs), 'x.pt2')"


def kind_of(path: Path) -> Kind:
    """Raises SourceError that says what it is instead, and what to do."""
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise SourceError(f"{path.name} is no model: the file is empty")
    if start.startswith(b"PK"):
        return _archive(path)
    if start.startswith(b"\x89HDF"):
        return "h5"
    if start[4:8] == b"TFL3":
        return "tflite"
    if _PICKLE.match(start):
        raise SourceError(f"{path.name} is a pickle, which runs code when it is loaded; {_TORCH_HINT}")
    if _is_onnx(path):
        return "onnx"
    raise SourceError(f"{path.name} is no model that Lepta knows; {TAKEN}; of Keras: model.save('x.keras')")


def _folder(path: Path) -> Kind:
    if (path / SAVED_MODEL).is_file():
        return "saved-model"
    if (path / "saved_model.pbtxt").exists():
        raise SourceError(f"{path.name} is a SavedModel as text; save it again by model.export('folder')")
    raise SourceError(f"folder {path.name} is no SavedModel: it has no {SAVED_MODEL}; {TAKEN}")


def _archive(path: Path) -> Kind:
    with opened(path) as archive:
        names = set(archive.namelist())
    inner = {name.partition("/")[2] for name in names}
    if {"config.json", "metadata.json"} & names:
        return "keras"
    if SAVED_MODEL in names | inner:
        return "saved-model"
    if {"archive_format", "archive_version"} <= inner or "serialized_exported_program.json" in names:
        return "torch"
    if "data.pkl" in names | inner:
        what = "a TorchScript program" if {"constants.pkl"} & inner else "pickled PyTorch weights"
        raise SourceError(f"{path.name} is {what}, which may run code when it is loaded; {_TORCH_HINT}")
    if names and all(name.endswith(".npy") for name in names):
        raise SourceError(f"{path.name} is data, not a model; give it as the data")
    found = ", ".join(sorted(names)[:5]) or "no files"
    raise SourceError(f"{path.name} is an archive but no model: it has {found}; {TAKEN}")


def _is_onnx(path: Path) -> bool:
    """ONNX has no magic number: its outermost fields tell."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        view = memoryview(whole)
        try:
            numbers = {field.number for field in fields(view)}
        except WireError:
            return False
        finally:
            view.release()
    return numbers >= _ONNX_NEEDED and numbers <= _ONNX
