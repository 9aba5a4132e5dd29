"""`.keras` archives made by hand: whole for every check that does not load them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}
KERAS_3 = {"keras_version": "3.15.1"}


def model_of(layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "m", "layers": layers},
        "registered_name": None,
        **more,
    }


def write(path: Path, config: object, metadata: object = KERAS_3, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
        for name, content in files.items():
            archive.writestr(name, content)
    return path
