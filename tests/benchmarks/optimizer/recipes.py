"""`lepta optimize` from its first line to its last: recipe `default` on a small CNN, and a float .tflite. Nothing is
remembered from before; the CNN is trained beforehand and not counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent.contract import children
from tests.benchmarks.optimizer.command import Taken, lepta
from tests.benchmarks.results import Figure, at_most

PROFILE = "x86-cpu"
PATIENCE_S = 1200.0
TIMES = 3


class SourceError(RuntimeError):
    """The network to optimize could not be trained; what its process said is in the message."""


def figures(folder: Path, quick: bool) -> list[Figure]:
    _train(folder, quick)
    recipe = "ptq" if quick else "default"
    pruned = _optimize(folder, "cnn.keras", "all.npz", "--recipe", recipe)
    # Three times: the first one on a machine also compiles the modules that it is the first to import.
    times = sorted((_optimize(folder, "cnn.tflite", "few.npz") for _ in range(TIMES)), key=lambda taken: taken.wall_s)
    converted = times[TIMES // 2]
    rows = "3,000" if quick else "55,000"
    what = f"recipe {recipe}, 99,162 parameters, {rows} rows to train on, with what the report compares to"
    walls = ", ".join(f"{taken.wall_s:.1f}" for taken in times)
    few = f"median of {walls}; 396 kB float .tflite; 256 rows calibrate, 1,000 validate, 1,000 test"
    memory = "proportional set size of all processes"
    return [
        at_most("default_recipe_s", pruned.wall_s, 180, "s", f"{what}; {pruned.cpu_s:.0f} s of processor"),
        at_most("default_recipe_peak_mb", pruned.peak_mb, 2048, "MB", memory),
        at_most("tflite_path_s", converted.wall_s, 5, "s", f"{few}; {converted.cpu_s:.1f} s of processor"),
        at_most("tflite_path_peak_mb", max(taken.peak_mb for taken in times), 600, "MB", memory),
    ]


def _optimize(folder: Path, source: str, data: str, *options: str) -> Taken:
    where = ["--data", str(folder / data), "--out", str(folder / f"{source}.out"), "--profile", PROFILE]
    log = folder / f"{source}.log"
    return lepta(["optimize", str(folder / source), *where, "--no-cache", *options], log, PATIENCE_S)


def _train(folder: Path, quick: bool) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.optimizer.source", str(folder), *(["--quick"] if quick else [])]
    environment = children.environment({"PYTHONSAFEPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"})
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SourceError(f"training ended with status {ended.returncode}:\n{ended.stderr[-3000:]}")
