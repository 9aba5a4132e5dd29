"""Measures an artifact in the agent's own runtime. Runs in a child that never saw TensorFlow."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from agent.contract import golden
from agent.runtime import Model, ModelError, RuntimeUnavailable, installed, load, predict
from firmware_profiles.profile import Facts
from optimizer.data import Array, Splits
from optimizer.errors import RefusedError, StepError
from optimizer.judges import Measured, Paired
from optimizer.macs import of_tflite
from optimizer.passes import Inputs, Progress
from optimizer.settings import LIMITS
from optimizer.sources import InputSpec


class _Float(NamedTuple):
    """What the float model made of a split."""

    outputs: dict[str, Array]
    labels: Array | None


def evaluate_artifact(inputs: Inputs, settings: dict[str, Any], out: Path, progress: Progress) -> dict[str, Any]:
    """The pass. Inputs `artifact`, `data`, `outputs`, `parity`, `acceptance`; settings `inputs` (of the source),
    `runtimes`, `threads`, `judged`."""
    content = inputs["artifact"].read_bytes()
    before = _own_memory()
    model = _load(content, settings["runtimes"], settings["threads"])
    splits = Splits(inputs["data"], [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in settings["inputs"]])
    size = of_tflite(content)
    parity = golden.read_parity(inputs["parity"].read_bytes())
    progress(0.1, "parity set")
    parities = [_faithful("the parity set", parity.outputs, predict(model, parity.inputs))]
    memory_mb = max(0.0, _own_memory() - before)
    result: dict[str, Any] = {
        "paired": None,
        "accuracy_float": None,
        "accuracy_int8": None,
        "accuracy_acceptance": None,
    }
    progress(0.2, "validation")
    expected = _float_outputs(inputs["outputs"], "validation")
    actual = predict(model, splits.inputs("validation", LIMITS.score_rows))
    parities.append(_faithful("validation", expected.outputs, actual))
    if settings["judged"]:
        result["paired"] = _paired(expected, actual)._asdict()
        progress(0.5, "test")
        result |= _on_test(model, splits, _float_outputs(inputs["outputs"], "test"))
        acceptance = golden.read_acceptance(inputs["acceptance"].read_bytes())
        result["accuracy_acceptance"] = golden.accuracy(acceptance.labels, _first(predict(model, acceptance.inputs)))
    progress(0.9, "latency")
    return result | {
        "parities": [parity._asdict() for parity in parities],
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


def _load(content: bytes, runtimes: list[str], threads: int) -> Model:
    try:
        return load(content, runtimes=runtimes, threads=threads)
    except ModelError as error:
        raise RefusedError(str(error)) from error
    except RuntimeUnavailable as error:
        raise StepError(f"the gate needs a runtime of the profile on this host: {error}") from error


def _faithful(where: str, expected: dict[str, Array], actual: dict[str, Array]) -> Measured:
    found = golden.faithfulness(expected, actual)
    return Measured(where, found.agreement, max(found.sqnr_db, -999.0))


def _paired(expected: _Float, actual: dict[str, Array]) -> Paired:
    """The rows that only one of the two models gets right."""
    if expected.labels is None:
        raise StepError("no labels of validation")
    before = golden.correct(expected.labels, _first(expected.outputs))
    after = golden.correct(expected.labels, _first(actual))
    return Paired(len(before), int((before & ~after).sum()), int((after & ~before).sum()))


def _on_test(model: Model, splits: Splits, expected: _Float) -> dict[str, float]:
    if expected.labels is None:
        raise StepError("no labels of test")
    actual = predict(model, splits.inputs("test", LIMITS.score_rows))
    return {
        "accuracy_float": golden.accuracy(expected.labels, _first(expected.outputs)),
        "accuracy_int8": golden.accuracy(expected.labels, _first(actual)),
    }


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


def _float_outputs(path: Path, split: str) -> _Float:
    with np.load(path, allow_pickle=False) as archive:
        found = {key.partition("/")[2]: archive[key] for key in archive.files if key.startswith(f"{split}/")}
    return _Float({name: array for name, array in found.items() if name}, found.get(""))


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
