"""A first look at what users upload: what is plainly no model or no data is refused before anything is stored of it.

The optimizer looks closer, in a process of its own; this look reads names inside archives and nothing else.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from controller.errors import UserError

_KERAS = {"config.json", "metadata.json", "model.weights.h5"}


def check_model(path: Path, name: str) -> None:
    """Raise UserError unless the file could be a Keras 3 `.keras` archive. `name` is what the user calls it."""
    missing = _KERAS - _names(path, name, "a Keras model", "save it with Keras 3: model.save('x.keras')")
    if missing:
        raise UserError(
            f"{name} is not a Keras 3 model: it has no {', '.join(sorted(missing))}",
            "save it with Keras 3: model.save('x.keras')",
        )


def check_data(path: Path, name: str) -> None:
    """Raise UserError unless the file could be an `.npz` of arrays."""
    hint = "write it with numpy.savez: arrays train/x, train/y, validation/x, ..."
    names = _names(path, name, "an .npz file", hint)
    if not names or not all(inner.endswith(".npy") for inner in names):
        raise UserError(f"{name} is not an .npz file: it holds {', '.join(sorted(names)[:3]) or 'nothing'}", hint)


def _names(path: Path, name: str, what: str, hint: str) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{name} is not {what}: {error}", hint) from error
