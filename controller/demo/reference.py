"""A bare process that runs one artifact with the runtime that ships: what the fleet's answers are compared with.

JSON lines: the first names `model`, `runtimes`, `threads` and `input` (.npz); the answer says that it is ready. Then
`{"do": "score", "output": FILE}` computes every row once, `{"do": "rate", "seconds": S}` computes rows for so long;
both answer with rows and seconds. It ends with its input.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.contract.golden import Array
from agent.runtime import Model, load, predict

# Rows between two looks at the clock.
_PIECE = 16
_NO_INPUTS = ("labels", "id")


def main() -> int:
    lines = iter(sys.stdin.buffer.readline, b"")
    told = msgspec.json.decode(next(lines))
    model = load(Path(told["model"]).read_bytes(), runtimes=told["runtimes"], threads=told["threads"])
    inputs = _inputs(Path(told["input"]), model)
    predict(model, _rows(inputs, 0, _PIECE))
    _say({"ready": True, "runtime": model.runtime, "family": model.family})
    for line in lines:
        asked = msgspec.json.decode(line)
        _say(
            _score(model, inputs, asked["output"]) if asked["do"] == "score" else _rate(model, inputs, asked["seconds"])
        )
    return 0


def _score(model: Model, inputs: dict[str, Array], output: str) -> dict[str, Any]:
    began = time.perf_counter()
    outputs = predict(model, inputs)
    seconds = time.perf_counter() - began
    # The stub of savez takes `allow_pickle` for one of the arrays.
    np.savez(output, **outputs)  # type: ignore[arg-type]
    return {"rows": _count(inputs), "seconds": seconds}


def _rate(model: Model, inputs: dict[str, Array], seconds: float) -> dict[str, Any]:
    rows, at, count = 0, 0, _count(inputs)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        piece = _rows(inputs, at, at + _PIECE)
        predict(model, piece)
        rows += _count(piece)
        at = (at + _PIECE) % count
    return {"rows": rows, "seconds": time.perf_counter() - began}


def _inputs(path: Path, model: Model) -> dict[str, Array]:
    """The model's inputs; `x` stands for the only one."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in _NO_INPUTS}
    names = [spec.name for spec in model.inputs]
    if len(names) == 1 and names[0] not in arrays:
        arrays = {names[0]: arrays["x"]}
    # As a job sends them: real numbers as float32, the model's own type as it is.
    own = {spec.name: spec.dtype for spec in model.inputs}
    return {n: arrays[n] if arrays[n].dtype.name == own[n] else arrays[n].astype(np.float32) for n in names}


def _rows(inputs: dict[str, Array], first: int, last: int) -> dict[str, Array]:
    return {name: array[first:last] for name, array in inputs.items()}


def _count(inputs: dict[str, Array]) -> int:
    return len(next(iter(inputs.values())))


def _say(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()
