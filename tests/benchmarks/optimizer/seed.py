"""One network by one seed, in a process of its own: `python -m tests.benchmarks.optimizer.seed KIND SEED FOLDER
[--quick]` trains, prunes, converts and writes the files and KIND-SEED.json. One core."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from agent.runtime import load, predict
from optimizer.distill import Goal, Taught, tune
from optimizer.prune.run import Report, Rows, prune
from optimizer.prune.surgery import copy_of
from optimizer.quantize import quantize
from optimizer.settings import LIMITS
from tests.benchmarks.optimizer import fashion
from tests.benchmarks.optimizer.convert import float_file, plain_int8
from tests.benchmarks.optimizer.fashion import Array, Fashion, Part
from tests.benchmarks.optimizer.nets import net
from tests.benchmarks.optimizer.outcome import Outcome, Quantized, Trained
from tests.benchmarks.optimizer.plans import NEVER, epochs_of, plan_of
from tests.builders import RUNTIMES

GOAL = Goal("sparse_categorical_crossentropy", probabilities=True)


def main(kind: str, seed: str, folder: str, *options: str) -> None:
    quick = "--quick" in options
    data = fashion.load(flat=kind == "mlp", quick=quick)
    outcome = One(kind, int(seed), data, Path(folder), quick).go()
    (Path(folder) / f"{kind}-{seed}.json").write_bytes(msgspec.json.encode(outcome))


class One:
    """Everything that is made of one seed. The test rows are touched last, when all is trained and converted."""

    def __init__(self, kind: str, seed: int, data: Fashion, folder: Path, quick: bool) -> None:
        self._kind, self._seed, self._data, self._folder, self._quick = kind, seed, data, folder, quick
        self._plan = plan_of(kind, seed, quick)
        self._seconds: dict[str, float] = {}

    def go(self) -> Outcome:
        """What was trained here by a run before is not trained again; it is converted and measured anew."""
        done = self._path("trained.json")
        if not done.exists():
            done.write_bytes(msgspec.json.encode(self._train()))
        trained = msgspec.json.decode(done.read_bytes(), type=Trained)
        self._seconds = dict(trained.seconds)
        teacher, pruned = (keras.saving.load_model(self._path(f"{name}.keras")) for name in ("float", "pruned"))
        return Outcome(
            kind=self._kind,
            seed=self._seed,
            before=trained.before,
            after=trained.after,
            steps=trained.steps,
            accuracy_scratch=trained.accuracy_scratch,
            big=self._timed("int8", lambda: self._quantized(teacher, "float")),
            small=self._timed("int8 pruned", lambda: self._quantized(pruned, "pruned")),
            seconds=self._seconds,
        )

    def _train(self) -> Trained:
        teacher = self._timed("float model", self._teacher)
        pruned, report = self._timed("pruning", lambda: self._pruned(teacher))
        scratch = self._timed("from scratch", lambda: self._scratch(pruned))
        teacher.save(self._path("float.keras"))
        pruned.save(self._path("pruned.keras"))
        return Trained(
            before=report.before,
            after=report.after,
            steps=epochs_of(self._plan.pruning) * -(-len(self._data.train.y) // self._plan.pruning.after.batch),
            accuracy_scratch=_accuracy_of(scratch, self._data.test),
            seconds=self._seconds,
        )

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._kind}-{self._seed}-{name}"

    def _timed(self, what: str, make: Any) -> Any:
        started = time.monotonic()
        made = make()
        self._seconds[what] = time.monotonic() - started
        print(f"{self._kind} seed {self._seed}: {what} {self._seconds[what]:.0f} s", file=sys.stderr, flush=True)
        return made

    def _teacher(self) -> Any:
        keras.utils.set_random_seed(self._seed)
        model = net(self._kind, self._quick)
        tune(model, _rows(self._data.train), _rows(self._data.validation), GOAL, self._plan.teacher, _quiet)
        return model

    def _pruned(self, teacher: Any) -> tuple[Any, Report]:
        keras.utils.set_random_seed(self._seed)
        train, check = (Rows((part.x,), part.y) for part in (self._data.train, self._data.validation))
        return prune(teacher, train, check, self._plan.pruning, _quiet)

    def _scratch(self, pruned: Any) -> Any:
        """The pruned model's shapes with new weights: as many steps as all of pruning had, of its last tuning."""
        keras.utils.set_random_seed(self._seed)
        model = copy_of(pruned)
        pruning = self._plan.pruning
        tuning = msgspec.structs.replace(pruning.after, epochs=epochs_of(pruning), patience=NEVER)
        tune(model, _rows(self._data.train), _rows(self._data.validation), GOAL, tuning, _quiet)
        return model

    def _quantized(self, model: Any, name: str) -> Quantized:
        calibration = self._data.train.x[: LIMITS.calibration_rows]
        made = {
            "float": float_file(model),
            "int8": quantize(model, {model.inputs[0].name: calibration}, weights="per-channel"),
            "plain": plain_int8(model, calibration),
        }
        for kind, content in made.items():
            self._path(f"{name}-{kind}.tflite").write_bytes(content)
        return Quantized(
            accuracy_float=_accuracy_of(model, self._data.test),
            accuracy_int8=_accuracy_in(made["int8"], self._data.test),
            accuracy_plain=_accuracy_in(made["plain"], self._data.test),
            bytes_float=len(made["float"]),
            bytes_int8=len(made["int8"]),
        )


def _rows(part: Part) -> Taught:
    return Taught((part.x,), part.y, None)


def _quiet(done: float, detail: str) -> None:
    """Of progress, nothing."""


def _accuracy_of(model: Any, part: Part) -> float:
    return _points(model.predict(part.x, batch_size=500, verbose=0), part)


def _accuracy_in(content: bytes, part: Part) -> float:
    """In the agent's runtime."""
    model = load(content, runtimes=RUNTIMES)
    (scores,) = predict(model, {model.inputs[0].name: part.x}).values()
    return _points(scores, part)


def _points(scores: Array, part: Part) -> float:
    return float((np.argmax(scores, 1) == part.y).mean() * 100)


if __name__ == "__main__":
    main(*sys.argv[1:])
