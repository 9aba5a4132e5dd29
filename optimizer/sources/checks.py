"""What is refused before anything is loaded, for every kind of source."""

from __future__ import annotations

from pathlib import Path

from optimizer.sources.extras import check_installed
from optimizer.sources.flat_file import check_tflite
from optimizer.sources.h5_file import check_h5
from optimizer.sources.keras_file import check_keras
from optimizer.sources.kinds import Kind, kind_of
from optimizer.sources.onnx_file import check_onnx
from optimizer.sources.saved_model import check_saved_model
from optimizer.sources.torch_file import check_torch


def check_static(path: Path, trust: bool = False) -> Kind:
    """Refuse what is no model, too large, damaged, or could run code; say which kind it is otherwise.

    `trust`: its owner vouches for what a .h5 or .pt2 file does when it is loaded. Raises SourceError.
    """
    kind = kind_of(path)
    if kind == "keras":
        check_keras(path)
    elif kind == "h5":
        check_h5(path, trust)
    elif kind == "saved-model":
        check_saved_model(path)
    elif kind == "tflite":
        check_tflite(path)
    elif kind == "torch":
        check_torch(path, trust)
    else:
        check_onnx(path)
    check_installed(kind, path.name)
    return kind
