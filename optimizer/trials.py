"""Candidates of one profile: made from the smallest on, judged on validation; the first that passes, on test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from firmware_profiles.profile import Profile
from optimizer.errors import CancelledError, OptimizerError, StepError
from optimizer.float_models import FloatModel, FloatModels
from optimizer.ladder import Way, budgets, ways
from optimizer.recipe import Override, Quantize, plain
from optimizer.report import Candidate, GateResult, Parities, TestUse
from optimizer.runner import Runner
from optimizer.start import Source
from optimizer.verdicts import Verdict, assess
from optimizer.work_files import ACCEPTANCE, FLOAT, MODEL, OUTPUTS, PARITY

# What the report says of the released point by the rows that judged it last.
_ON_TEST = ("accuracy_float", "accuracy_int8", "paired")


class Made(NamedTuple):
    """An artifact and what was measured of it on validation."""

    way: Way
    model: FloatModel
    path: Path
    measured: dict[str, Any]
    float_operators: tuple[str, ...] = ()
    floating: Path | None = None
    """The float graph that it was made from, if there is one."""

    @property
    def words(self) -> str:
        """How it came about, for people."""
        zeros = self.model.zeros
        return str(self.way) if zeros is None else f"{100 * zeros:.0f} % zeros, {self.way}"


class Chosen(NamedTuple):
    """The candidate to release, what is measured of it, and its gate on the rows that judged last."""

    made: Made
    gate: GateResult
    measured: dict[str, Any]


class Trials:
    """Of one profile. `candidates` and `test_uses` tell afterwards what was tried."""

    def __init__(
        self, profile: Profile, settings: Override, source: Source, models: FloatModels, runner: Runner
    ) -> None:
        self._profile, self._settings, self._source = profile, settings, source
        self._models, self._runner = models, runner
        self._quantize = settings.quantize or Quantize()
        self.candidates: list[Candidate] = []
        self.test_uses: list[TestUse] = []
        self.reasons: tuple[str, ...] = ()
        self.gate: GateResult | None = None

    def go(self) -> Chosen | None:
        """The first candidate that passes; None where none does, then `reasons` has those of the last budget."""
        for budget in budgets(self._settings):
            self.reasons = ()
            model = self._model(budget)
            for made in () if model is None else self._made(model, budget):
                verdict = assess(self._profile, self._source.facts, made.measured, made.path.stat().st_size)
                self._note(made, verdict)
                if verdict.passed and (chosen := self._judged(made, verdict)):
                    self.candidates[-1] = msgspec.structs.replace(self.candidates[-1], chosen=True)
                    return chosen
                if verdict.passed:
                    break
                if not verdict.repairable:
                    return None
        return None

    def measure(self, made: Made, split: str, shown: str = "") -> dict[str, Any]:
        """Through the agent's runtime on a split: paired with the source, and its parities. `shown`: as progress."""
        source, golden = self._source, made.model.golden
        inputs = {
            "artifact": made.path,
            "data": source.data,
            "outputs": source.inspected / OUTPUTS,
            "parity": golden / PARITY,
            "acceptance": source.inspected / ACCEPTANCE,
        }
        if golden != source.inspected:
            inputs["own"] = golden / OUTPUTS
        settings = {
            "splits": [split],
            "inputs": source.facts["inputs"],
            "runtimes": list(self._profile.runtime.runtimes),
            "threads": self._profile.runtime.threads,
            "judged": source.facts["judged"],
        }
        return self._runner.do("evaluate", inputs, settings, shown or self._profile.name).manifest

    def convert(self, model: FloatModel, way: Way, keep_float: tuple[str, ...] = (), shown: str = "") -> Made:
        """The .tflite of a way, not measured yet. Raises OptimizerError where it cannot be had."""
        numerics, profile = self._profile.numerics, shown or self._profile.name
        shifting = numerics.weights == "power-of-two" and way.scheme == "int8"
        settings: dict[str, Any] = {
            "scheme": way.scheme,
            "weights": "per-tensor" if shifting else numerics.weights,
            "dense": numerics.dense,
            "input": numerics.input,
            "output": numerics.output,
            "mixed": numerics.mixed,
        }
        inputs = {"source": model.path, "data": self._source.data}
        floating = None
        if way.numerics == "qat":
            trained = {name: settings[name] for name in ("weights", "input", "output")}
            trained["tuning"] = {**plain(self._quantize.tuning), "seed": model.seed}
            done = self._runner.do("qat", {**inputs, "teacher": self._source.path}, trained, profile)
        else:
            settings |= {"keep_float": list(keep_float)}
            done = self._runner.do(self._source.kind.quantize, inputs, settings, profile)
            floating = next(
                (path for path in (done.folder / FLOAT, model.path) if path.suffix == ".tflite" and path.exists()), None
            )
        if shifting:
            done = self._runner.do("power-of-two", {"source": done.folder / MODEL}, {}, profile)
        return Made(way, model, done.folder / MODEL, {}, keep_float, floating)

    def errors(self, made: Made) -> dict[str, Any]:
        """`layers` in the order of execution and `worst`, by their error against the float model."""
        if made.floating is None:
            raise StepError("there is no float graph to compare with")
        inputs = {"float": made.floating, "data": self._source.data, "artifact": made.path}
        return self._runner.do("errors", inputs, {}, self._profile.name).manifest

    def _model(self, budget: float) -> FloatModel | None:
        """The float model of a budget; None, and noted, where it cannot be had or has lost too much by itself."""
        name = f"pruned to {100 * budget:g} %" if budget < 1 else "trained"
        try:
            model = self._models.of(budget)
        except CancelledError:
            raise
        except OptimizerError as error:
            self._note_failure(name, budget, str(error))
            return None
        before, after = self._source.facts["accuracy_validation"], model.accuracy_validation
        margin = self._profile.gate.accuracy_loss
        if before is None or after is None or before - after <= margin + 1e-12:
            return model
        lost = f"loses {100 * (before - after):.2f} points on validation before quantization, margin {100 * margin:.2f}"
        self._note_failure(name, budget, lost, model)
        return None

    def _made(self, model: FloatModel, budget: float) -> Iterator[Made]:
        """The artifacts of a float model, one after the other, each only when it is asked for."""
        mixed = self._profile.numerics.mixed
        for way in ways(budget, self._quantize, trainable=self._source.trainable, mixed=mixed):
            try:
                if way.numerics == "mixed":
                    yield from self._mixed(model, way)
                else:
                    yield self._measured(model, way)
            except CancelledError:
                raise
            except OptimizerError as error:
                self._note_failure(str(way), budget, str(error), model)

    def _mixed(self, model: FloatModel, way: Way) -> Iterator[Made]:
        """With 1, 2, 4, ... of the operators float that err most."""
        worst = self.errors(self.convert(model, way._replace(numerics="ptq")))["worst"]
        count = 1
        while count <= min(len(worst), self._quantize.float_operators):
            yield self._measured(model, way, tuple(worst[:count]))
            count *= 2

    def _measured(self, model: FloatModel, way: Way, keep_float: tuple[str, ...] = ()) -> Made:
        made = self.convert(model, way, keep_float)
        return made._replace(measured=self.measure(made, "validation"))

    def _judged(self, made: Made, verdict: Verdict) -> Chosen | None:
        """On test where there is one; what passed on validation and not there is not released."""
        if not self._source.tested:
            return Chosen(made, verdict.gate, made.measured)
        self.test_uses.append(TestUse(what=f"{self._profile.name}: {made.words}", decided=True))
        tested = self.measure(made, "test")
        found = assess(self._profile, self._source.facts, tested, made.path.stat().st_size)
        if found.passed:
            return Chosen(made, found.gate, {**made.measured, **{name: tested[name] for name in _ON_TEST}})
        problems = tuple(f"on test: {reason}" for reason in found.problems)
        self._blame(problems, found.gate)
        self.candidates[-1] = msgspec.structs.replace(self.candidates[-1], passed=False, reasons=problems)
        return None

    def _blame(self, problems: tuple[str, ...], gate: GateResult | None) -> None:
        self.reasons += tuple(problem for problem in problems if problem not in self.reasons)
        self.gate = gate or self.gate

    def _note(self, made: Made, verdict: Verdict) -> None:
        measured, size = made.measured, made.path.stat().st_size
        self._blame(verdict.problems, verdict.gate)
        self.candidates.append(
            Candidate(
                profile=self._profile.name,
                made=made.words,
                budget=made.way.budget,
                passed=verdict.passed,
                chosen=False,
                reasons=verdict.problems,
                parameters=measured["parameters"],
                macs=measured["macs"],
                bytes=size,
                latency_ms=measured["latency_ms"],
                accuracy_validation=measured["accuracy_int8"],
                loss_validation=verdict.gate.loss,
                parities=parities_of(measured),
                float_operators=made.float_operators,
            )
        )

    def _note_failure(self, name: str, budget: float, reason: str, model: FloatModel | None = None) -> None:
        self._blame((reason,), None)
        self.candidates.append(
            Candidate(
                profile=self._profile.name,
                made=name,
                budget=budget,
                passed=False,
                chosen=False,
                reasons=(reason,),
                parameters=model.parameters if model else None,
                macs=model.macs if model else None,
                accuracy_validation=model.accuracy_validation if model else None,
            )
        )


def parities_of(measured: Mapping[str, Any]) -> tuple[Parities, ...]:
    return msgspec.convert(measured["parities"], tuple[Parities, ...])
