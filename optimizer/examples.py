"""Examples that the optimizer can make: data, a trained model, a batch and a picture to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from firmware_profiles.allowed import describe, unknown_key
from optimizer.errors import RefusedError
from optimizer.folder import Folder
from optimizer.runner import Tell
from optimizer.steps import Steps, Work

_FILES = {"model": "model.keras", "data": "data.npz", "batch": "batch.npz", "seven": "seven.png"}
_LABELS = [str(digit) for digit in range(10)]
# Light strokes on dark ground, 8 x 8; `seven.png` is dark on light, as on paper.
_PREPROCESSING = {"height": 8, "width": 8, "channels": 1, "scale": 1 / 255, "offset": 0.0, "invert": True}

Filters = Annotated[int, Meta(ge=1, le=512)]


class DigitsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epochs: Annotated[int, Meta(ge=1, le=100)] = 4
    seed: Annotated[int, Meta(ge=0)] = 1
    channels: Annotated[tuple[Filters, ...], Meta(min_length=1, max_length=12)] = (32, 64, 64, 64)
    """Filters of each convolution."""
    wrong_labels: bool = False
    """Teach every digit as its successor: a version that converts faithfully and is of no use."""


def make_example(name: str, out: Path, options: dict[str, Any], steps: Steps, tell: Tell) -> dict[str, Any]:
    """Train the example into `out`: {"files": {role: File}, "labels", "preprocessing", "accuracy", "parameters"}."""
    if name != "digits":
        raise RefusedError(f"no example is called {name[:80]!r}; there is digits")
    parsed = _parse(options)
    with Folder(out) as folder:
        work = Work("digits", {}, msgspec.to_builtins(parsed), folder.work)
        finished = steps.run(work, lambda fraction, detail: tell("train", "", fraction, detail))
        files = {role: folder.keep(folder.work / file, file) for role, file in _FILES.items()}
    return {
        "files": msgspec.to_builtins(files),
        "labels": _LABELS,
        "preprocessing": _PREPROCESSING,
        "wall_s": finished.wall_s,
        "peak_memory_mb": finished.peak_memory_mb,
        **finished.result,
    }


def _parse(options: dict[str, Any]) -> DigitsOptions:
    problem = unknown_key(options, DigitsOptions)
    if problem is not None:
        raise RefusedError(f"options: {problem}")
    try:
        return msgspec.convert(options, DigitsOptions)
    except msgspec.ValidationError as error:
        raise RefusedError(f"options: {describe(error, DigitsOptions)}") from error
