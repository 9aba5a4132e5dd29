"""Rows of the report beside ours: what the same source gives by other ways, for as much training.

Nothing is chosen by them, so their look at test decides nothing; it is counted all the same.
"""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from optimizer.errors import CancelledError, OptimizerError
from optimizer.float_models import FloatModel, FloatModels
from optimizer.ladder import Way
from optimizer.recipe import Compare
from optimizer.report import Row, TestUse
from optimizer.start import Source
from optimizer.trials import Chosen, Made, Trials

_PTQ = Way(1.0, "int8", "ptq")


class Comparison:
    """Made with the numerics of the profile that `trials` are of."""

    def __init__(self, trials: Trials, models: FloatModels, source: Source, wanted: Compare) -> None:
        self._trials, self._models, self._source, self._wanted = trials, models, source, wanted
        self.test_uses: list[TestUse] = []

    def rows(self, chosen: Mapping[str, Chosen]) -> tuple[Row, ...]:
        """Float, PTQ only, the comparisons that are wanted, and ours by profile."""
        rows = [self._float(), self._ptq(next(iter(chosen.values()), None))]
        ours = next((found.made for found in chosen.values() if found.made.way.budget < 1), None)
        if ours is not None:
            model, share = ours.model, 1 - ours.model.parameters / self._models.source.parameters
            others: dict[str, tuple[bool, Callable[[], FloatModel]]] = {
                "tfmot prune + PTQ": (
                    self._wanted.tfmot,
                    lambda: self._models.sparse(share, model.training.steps, model.seed),
                ),
                "same size from scratch": (self._wanted.scratch, lambda: self._models.from_scratch(model, model.seed)),
            }
            rows += [self._row(name, make) for name, (wanted, make) in others.items() if wanted]
        return (*rows, *(self._ours(profile, found) for profile, found in chosen.items()))

    def _float(self) -> Row:
        facts, model = self._source.facts, self._models.source
        return Row(
            name="float",
            parameters=model.parameters,
            macs=model.macs,
            bytes=4 * model.parameters,
            accuracy_validation=facts["accuracy_validation"],
            accuracy_test=facts["accuracy_test"],
            latency_ms=self._float_latency_ms(),
            note="bytes: 4 a parameter",
        )

    def _float_latency_ms(self) -> float | None:
        """In the same runtime as the artifacts; None where there is no .tflite of the float model."""
        model = self._models.source
        try:
            floating = self._trials.convert(model, _PTQ, shown="float").floating
            if floating is None:
                return None
            found: float = self._trials.measure(Made(_PTQ, model, floating, {}), "validation", "float")["latency_ms"]
        except CancelledError:
            raise
        except OptimizerError:
            return None
        return found

    def _ptq(self, chosen: Chosen | None) -> Row:
        """What was chosen, where that is no more than this."""
        name = "PTQ only"
        if chosen is None or chosen.made.way != _PTQ or chosen.made.model is not self._models.source:
            return self._row(name, lambda: self._models.source)
        return _measured(name, chosen.made, chosen.measured["accuracy_int8"] if self._source.tested else None)

    def _row(self, name: str, make: Callable[[], FloatModel]) -> Row:
        """Quantized after training and measured; what fails is a row that says why."""
        try:
            model = make()
            made = self._trials.convert(model, _PTQ, shown=name)
            made = made._replace(measured=self._trials.measure(made, "validation", name))
            accuracy = self._on_test(name, made)
        except CancelledError:
            raise
        except OptimizerError as error:
            return Row(name=name, note=str(error))
        return _measured(name, made, accuracy)

    def _on_test(self, name: str, made: Made) -> float | None:
        if not self._source.tested:
            return None
        self.test_uses.append(TestUse(what=name, decided=False))
        found: float | None = self._trials.measure(made, "test", name)["accuracy_int8"]
        return found

    def _ours(self, profile: str, chosen: Chosen) -> Row:
        accuracy = chosen.measured["accuracy_int8"] if self._source.tested else None
        return _measured(f"Lepta, {profile}", chosen.made, accuracy)


def _measured(name: str, made: Made, accuracy_test: float | None) -> Row:
    model, measured = made.model, made.measured
    content = made.path.read_bytes()
    trained = model.training.steps > 0
    cost: dict[str, Any] = {}
    if trained:
        cost = {
            "steps": model.training.steps,
            "epoch_s": model.training.epoch_s,
            "train_s": model.training.train_s,
            "seeds": max(1, len(model.accuracies)),
            "spread": statistics.stdev(model.accuracies) if len(model.accuracies) > 1 else None,
        }
    return Row(
        name=name,
        parameters=measured["parameters"],
        zeros=model.zeros,
        macs=measured["macs"],
        bytes=len(content),
        packed_bytes=len(zlib.compress(content, 9)),
        latency_ms=measured["latency_ms"],
        accuracy_validation=measured["accuracy_int8"],
        accuracy_test=accuracy_test,
        note=made.words if name.startswith("Lepta") else "",
        **cost,
    )
