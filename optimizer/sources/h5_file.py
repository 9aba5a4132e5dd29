"""A legacy .h5 file: Keras' loader runs what it finds in it, so that its owner must vouch for it."""

from __future__ import annotations

from pathlib import Path

from optimizer.settings import LIMITS
from optimizer.sources.specs import SourceError


def check_h5(path: Path, trust: bool) -> None:
    size = path.stat().st_size
    if size > LIMITS.source_bytes:
        raise SourceError(f"{path.name} has {size} bytes; at most {LIMITS.source_bytes} are taken")
    if not trust:
        raise SourceError(
            f"{path.name} is a HDF5 file of legacy Keras, which can run code when it is loaded; "
            "if you made it yourself, add --trust, or save it as .keras: keras.saving.load_model(x).save('x.keras')"
        )
