"""The float models of a run: the source, and what training makes of it for every budget. Each is made once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from optimizer.recipe import Recipe, Sparsify, plain
from optimizer.report import Cut, Pruned
from optimizer.runner import Done, Runner
from optimizer.start import Source
from optimizer.tuning import Tuning
from optimizer.work_files import SOURCE


class Training(NamedTuple):
    """What training a model cost: steps in all, the median time of an epoch and the whole, in seconds."""

    steps: int = 0
    epoch_s: float = 0.0
    train_s: float = 0.0

    def plus(self, manifest: Mapping[str, Any]) -> Training:
        """With a training pass more, by its manifest."""
        return Training(
            self.steps + int(manifest["steps"]),
            float(manifest["epoch_s"]) or self.epoch_s,
            self.train_s + float(manifest["wall_s"]),
        )


class FloatModel(NamedTuple):
    """A float model that can be quantized; `golden` is the folder of its parity set and outputs."""

    path: Path
    golden: Path
    parameters: int
    macs: int
    accuracy_validation: float | None
    training: Training
    seed: int = 0
    accuracies: tuple[float, ...] = ()
    """On validation, of every seed that was trained."""
    pruned: Pruned | None = None
    zeros: float | None = None
    """Share of weights that are zero, where they were made so."""


class FloatModels:
    """Makes float models by the recipe: distilled, pruned to a budget, made sparse, as far as it says so."""

    def __init__(self, runner: Runner, recipe: Recipe, source: Source, seed: int) -> None:
        self._runner, self._recipe, self._seed = runner, recipe, seed
        self._kind, self._source, self._data = source.kind, source.path, source.data
        facts = source.facts
        accuracy = facts["accuracy_validation"]
        self.source = FloatModel(
            source.path, source.inspected, facts["parameters"], facts["macs"], accuracy, Training()
        )
        self._pruned: dict[tuple[float, int], Pruned] = {}

    @property
    def pruned(self) -> tuple[Pruned, ...]:
        """What was pruned, by budget and seed."""
        return tuple(self._pruned[key] for key in sorted(self._pruned))

    def of(self, budget: float) -> FloatModel:
        """Raises OptimizerError where it cannot be made, such as a budget out of reach."""
        seeds = [self._seed + at for at in range(self._recipe.seeds)]
        if not self.trains(budget):
            return self.source
        made = [self._trained(budget, seed) for seed in seeds]
        best = max(made, key=lambda model: -1.0 if model.accuracy_validation is None else model.accuracy_validation)
        return best._replace(accuracies=tuple(m.accuracy_validation for m in made if m.accuracy_validation is not None))

    def trains(self, budget: float) -> bool:
        """Whether a budget means training at all."""
        recipe = self._recipe
        return bool(recipe.distill or recipe.sparsify or (recipe.prune and budget < 1))

    def sparse(self, share: float, steps: int, seed: int) -> FloatModel:
        """For comparison: the source with that share of its weights zero, trained for just as many steps.

        On labels alone, which is how tensorflow-model-optimization is used; without labels by the source itself.
        """
        given = self._recipe.sparsify or Sparsify()
        tuning = msgspec.structs.replace(given.tuning, batch=self._tuning().batch, steps=steps, alpha=0.0)
        settings = msgspec.structs.replace(given, final=min(0.99, share), pattern=None, tuning=tuning)
        done = self._train("sparsify", {"source": self._source}, plain(settings), seed)
        model = self._inspected(done, Training().plus(done.manifest), seed, None)
        return model._replace(zeros=done.manifest["zeros"])

    def from_scratch(self, student: FloatModel, seed: int) -> FloatModel:
        """For comparison: the shapes of `student`, new weights, just as many steps, on labels alone."""
        tuning = msgspec.structs.replace(self._tuning(), steps=student.training.steps)
        settings = {"tuning": plain(tuning), "start": "scratch", "teach": False}
        done = self._train("distill", {"source": self._source, "student": student.path}, settings, seed)
        return self._inspected(done, Training().plus(done.manifest), seed, None)

    def _trained(self, budget: float, seed: int) -> FloatModel:
        recipe, at, cost, pruned = self._recipe, self._source, Training(), None
        if recipe.distill is not None:
            inputs = {"source": self._source}
            if recipe.distill.student:
                inputs["student"] = Path(recipe.distill.student)
            done = self._train("distill", inputs, {"tuning": plain(recipe.distill.tuning), "start": "student"}, seed)
            at, cost = done.folder / SOURCE, cost.plus(done.manifest)
        if recipe.prune is not None and budget < 1:
            settings = {k: v for k, v in plain(recipe.prune).items() if k != "budgets"}
            done = self._train("prune", {"source": at}, {**settings, "budget": budget}, seed)
            at, cost, pruned = done.folder / SOURCE, cost.plus(done.manifest), _pruned(budget, seed, done.manifest)
        if recipe.sparsify is not None:
            done = self._train("sparsify", {"source": at}, plain(recipe.sparsify), seed)
            cost = cost.plus(done.manifest)
        model = self._inspected(done, cost, seed, pruned)
        return model if recipe.sparsify is None else model._replace(zeros=done.manifest["zeros"])

    def _train(self, name: str, inputs: Mapping[str, Path], settings: dict[str, Any], seed: int) -> Done:
        return self._runner.do(name, {**inputs, "data": self._data}, _seeded(settings, seed))

    def _inspected(self, done: Done, training: Training, seed: int, pruned: Pruned | None) -> FloatModel:
        path = done.folder / SOURCE
        settings = {"labels": [], "seed": self._seed, "splits": ["validation"]}
        found = self._runner.do(self._kind.inspect, {"source": path, "data": self._data}, settings)
        accuracy = found.manifest["accuracy_validation"]
        facts = found.manifest
        if pruned is not None:
            pruned = msgspec.structs.replace(pruned, accuracy_validation=accuracy)
            self._pruned[pruned.budget, seed] = pruned
        return FloatModel(
            path, found.folder, facts["parameters"], facts["macs"], accuracy, training, seed, pruned=pruned
        )

    def _tuning(self) -> Tuning:
        """That of the recipe's main training."""
        recipe = self._recipe
        if recipe.prune is not None:
            return recipe.prune.after
        return (recipe.distill or recipe.sparsify or recipe.quantize).tuning


def _pruned(budget: float, seed: int, manifest: Mapping[str, Any]) -> Pruned:
    cuts = [Cut(name=n, before=g["channels"], after=g["kept"]) for n, g in manifest["groups"].items()]
    barriers = [f"{barrier['path']} ({barrier['kind']}): {barrier['reason']}" for barrier in manifest["barriers"]]
    return Pruned(
        budget=budget,
        seed=seed,
        parameters=manifest["after"]["parameters"],
        macs=manifest["after"]["macs"],
        groups=tuple(cuts),
        barriers=tuple(barriers),
        blocks=tuple(manifest["blocks"]),
        accuracy_validation=None,
    )


def _seeded(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """With that seed wherever the settings have one."""
    return {
        name: _seeded(value, seed) if isinstance(value, dict) else seed if name == "seed" else value
        for name, value in settings.items()
    }
