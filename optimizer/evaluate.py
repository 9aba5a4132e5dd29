"""Measures an artifact in the agent's own runtime. Runs in a child that never saw TensorFlow."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from agent.contract import golden
from agent.runtime import Model, ModelError, RuntimeUnavailable, installed, load
from agent.runtime import predict as predict
from firmware_profiles.profile import Facts
from optimizer.data import Array, Splits
from optimizer.errors import RefusedError, StepError
from optimizer.judges import Measured, Paired
from optimizer.macs import of_tflite
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec


class _Float(NamedTuple):
    """What a float model made of a split."""

    outputs: dict[str, Array]
    labels: Array | None


def evaluate_artifact(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs `artifact`, `data`, `parity`, `acceptance`, `outputs` (the original's, which accuracy is paired
    with) and, where a model was trained on the way, `own`: outputs of the float model that was converted. Settings
    `inputs` (of the source), `runtimes`, `threads`, and `splits` to look at: validation to choose, test to judge.

    The manifest has a table per split; `paired` and `parities` are those of the first split asked for (the parity set's
    before it), `accuracy_*` those of the last. A split that was not asked for is not read.
    """
    content = inputs["artifact"].read_bytes()
    before = _own_memory()
    model = load_artifact(content, settings["runtimes"], settings["threads"])
    splits = Splits(inputs["data"], [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in settings["inputs"]])
    parity = golden.read_parity(inputs["parity"].read_bytes())
    progress(0.1, "parity set")
    on_parity = _faithful("the parity set", parity.outputs, predict(model, parity.inputs))
    memory_mb = max(0.0, _own_memory() - before)
    tables = {}
    asked = settings.get("splits") or _scored(inputs["outputs"])
    for at, split in enumerate(asked):
        progress(0.2 + 0.6 * at / len(asked), split)
        tables[split] = _on_split(model, splits, split, inputs)
    acceptance = _on_acceptance(model, inputs) if any(table["paired"] for table in tables.values()) else None
    progress(0.9, "latency")
    first, last = tables[asked[0]], tables[asked[-1]]
    size = of_tflite(content)
    return {
        "splits": tables,
        "paired": first["paired"],
        "parities": [_plain(on_parity), *first["parities"]],
        "accuracy_float": last["accuracy_float"],
        "accuracy_int8": last["accuracy"],
        "accuracy_acceptance": acceptance,
        "inputs": msgspec.to_builtins(model.inputs),
        "outputs": msgspec.to_builtins(model.outputs),
        "operators": list(model.operators),
        "parameters": size.parameters,
        "macs": size.macs,
        "memory_mb": memory_mb,
        "latency_ms": _latency_ms(model, {name: array[:1] for name, array in parity.inputs.items()}),
        "latency_runtime": model.runtime,
        "host": msgspec.to_builtins(host()),
    }


def host() -> Facts:
    """What this host is, as far as a profile asks."""
    return Facts(
        machine=platform.machine(),
        system=platform.system().lower(),
        board=_board(),
        cpus=psutil.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total // 2**20,
        runtimes=installed(),
    )


def load_artifact(content: bytes, runtimes: Sequence[str], threads: int) -> Model:
    """In the agent's runtime; raises RefusedError for what it cannot run, StepError where it is not installed."""
    try:
        return load(content, runtimes=runtimes, threads=threads)
    except ModelError as error:
        raise RefusedError(str(error)) from error
    except RuntimeUnavailable as error:
        raise StepError(f"the gate needs a runtime of the profile on this host: {error}") from error


def _on_split(model: Model, splits: Splits, split: str, inputs: Inputs) -> dict[str, Any]:
    """One look at a split: paired counts against the original, and parities, all of the same answers."""
    original = _float_outputs(inputs["outputs"], split)
    if original is None:
        raise StepError(f"there are no float outputs of {split}")
    apart = inputs.get("own", inputs["outputs"]) != inputs["outputs"]
    own = _float_outputs(inputs["own"], split) if apart else original
    actual = predict(model, splits.inputs(split, LIMITS.score_rows))
    paired = None if original.labels is None else _paired(original.labels, original, actual)
    parities = [] if own is None else [_faithful(split, own.outputs, actual)]
    if own is not original:
        judged = ("agreement",) if paired is None else ()
        parities.append(_faithful(f"{split} against the original", original.outputs, actual)._replace(judged=judged))
    return {
        "rows": len(_first(actual)),
        "paired": None if paired is None else paired._asdict(),
        "accuracy_float": None
        if original.labels is None
        else golden.accuracy(original.labels, _first(original.outputs)),
        "accuracy": None if original.labels is None else golden.accuracy(original.labels, _first(actual)),
        "parities": [_plain(parity) for parity in parities],
    }


def _on_acceptance(model: Model, inputs: Inputs) -> float | None:
    if "acceptance" not in inputs:
        return None
    acceptance = golden.read_acceptance(inputs["acceptance"].read_bytes())
    return golden.accuracy(acceptance.labels, _first(predict(model, acceptance.inputs)))


def _faithful(where: str, expected: dict[str, Array], actual: dict[str, Array]) -> Measured:
    """JSON has no infinities: what is no number is as bad as can be written."""
    found = golden.faithfulness(expected, actual)
    return Measured(where, found.agreement, max(found.sqnr_db, -999.0), found.cosine, min(found.max_error, 1e38))


def _plain(measured: Measured) -> dict[str, Any]:
    return {**measured._asdict(), "judged": list(measured.judged)}


def _paired(labels: Array, original: _Float, actual: dict[str, Array]) -> Paired:
    """The rows that only one of the two models gets right."""
    before = golden.correct(labels, _first(original.outputs))
    after = golden.correct(labels, _first(actual))
    return Paired(len(before), int((before & ~after).sum()), int((after & ~before).sum()))


def _latency_ms(model: Model, row: dict[str, Array]) -> float:
    """Median time of one row, real numbers in and out, over repeated runs; the first warm up."""
    for _ in range(3):
        predict(model, row)
    times: list[float] = []
    end = time.perf_counter() + LIMITS.latency_seconds
    while len(times) < LIMITS.latency_runs and (len(times) < 3 or time.perf_counter() < end):
        started = time.perf_counter()
        predict(model, row)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _scored(path: Path) -> list[str]:
    """The splits that there are float outputs of."""
    with np.load(path, allow_pickle=False) as archive:
        found = {key.partition("/")[0] for key in archive.files}
    return [split for split in ("validation", "test") if split in found]


def _float_outputs(path: Path, split: str) -> _Float | None:
    with np.load(path, allow_pickle=False) as archive:
        found = {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith(f"{split}/")}
    return _Float({name: array for name, array in found.items() if name}, found.get("")) if found else None


def _first(outputs: dict[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _own_memory() -> float:
    """MB that belong to this process alone."""
    return float(psutil.Process().memory_full_info().uss) / 2**20


def _board() -> str:
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except OSError:
        return ""
