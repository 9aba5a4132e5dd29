"""A trained network to optimize, in a process of its own: `python -m tests.benchmarks.optimizer.source FOLDER
[--quick]` writes cnn.keras, cnn.tflite, all.npz, and few.npz with no rows to train on."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import msgspec

from optimizer.distill import Goal, Taught, tune
from optimizer.settings import LIMITS
from tests.benchmarks.optimizer import fashion
from tests.benchmarks.optimizer.convert import float_file
from tests.benchmarks.optimizer.nets import net
from tests.benchmarks.optimizer.plans import plan_of

KEPT = 1000
"""Rows of validation and of test in few.npz."""


def main(folder: str, *options: str) -> None:
    quick, out = "--quick" in options, Path(folder)
    data = fashion.load(flat=False, quick=quick)
    keras.utils.set_random_seed(0)
    model = net("cnn", quick)
    train, check = (Taught((part.x,), part.y, None) for part in (data.train, data.validation))
    tuning = msgspec.structs.replace(plan_of("cnn", 0, quick).teacher, epochs=3)
    tune(model, train, check, Goal("sparse_categorical_crossentropy", True), tuning, lambda done, detail: None)
    model.save(out / "cnn.keras")
    (out / "cnn.tflite").write_bytes(float_file(model))
    fashion.write(out / "all.npz", data._asdict())
    few = {"calibration": data.train.first(LIMITS.calibration_rows)}
    fashion.write(out / "few.npz", few | {"validation": data.validation.first(KEPT), "test": data.test.first(KEPT)})


if __name__ == "__main__":
    main(*sys.argv[1:])
