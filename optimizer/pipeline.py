"""One run: the source is opened, candidates are made and judged per profile, the others compared, and all is reported.

This module runs in the serving process: it imports no TensorFlow and no numpy; passes do the work in children.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from firmware_profiles.profile import Profile
from optimizer.cache import Cache
from optimizer.comparison import Comparison
from optimizer.errors import RefusedError
from optimizer.float_models import FloatModels
from optimizer.folder import Folder
from optimizer.kinds import OPEN, OPENED
from optimizer.ladder import budgets
from optimizer.opening import Start, start
from optimizer.page import page
from optimizer.recipe import Recipe, find, plain
from optimizer.report import Artifact, Report, Row, TestUse, to_builtins, to_json
from optimizer.runner import Runner, Tell, tools
from optimizer.runs import RunSpec, read_profiles
from optimizer.settings import LIMITS
from optimizer.sources import Kind, check_recipe, check_static, suited
from optimizer.steps import Steps
from optimizer.summary import (
    data_digest,
    float_model,
    host_of,
    layers_of,
    pass_times,
    rejected,
    splits_of,
)
from optimizer.trials import Chosen, Trials
from optimizer.verdicts import artifact
from optimizer.work_files import ACCEPTANCE, PARITY


def optimize(run: RunSpec, out: Path, steps: Steps, tell: Tell) -> dict[str, Any]:
    """Do one run and return its report, which also lies in `out` with the files it names.

    A profile that cannot be served is rejected with reasons and does not stop the others. Raises OptimizerError when
    nothing can be said at all: bad model, bad data, a recipe that the source cannot follow, cancelled.
    """
    started = time.monotonic()
    profiles = read_profiles(run)
    tell("check", "", 0.0, "reading the model file")
    kind = check_static(Path(run.source), trust=run.trust)
    recipe = _recipe(run, kind)
    _check_readable(Path(run.data))
    store = Cache(Path(run.cache), run.cache_bytes) if run.cache else None
    with Folder(out) as folder:
        runner = Runner(steps, folder.work, store, tell)
        runner.limit(recipe.seconds, recipe.memory_mb)
        _expect(runner, kind, recipe, profiles)
        runner.warm(OPEN[kind], "dataset", OPENED[kind].quantize if kind in OPENED else "dataset")
        report = _Run(run, kind, recipe, profiles, folder, runner).go(started)
    tell("report", "", 1.0, f"{len(report.artifacts)} artifacts, {len(report.rejected)} rejected")
    return to_builtins(report)


class _Run:
    def __init__(
        self, run: RunSpec, kind: Kind, recipe: Recipe, profiles: list[Profile], folder: Folder, runner: Runner
    ) -> None:
        self._run, self._kind, self._recipe = run, kind, recipe
        self._profiles, self._folder, self._runner = profiles, folder, runner

    def go(self, started: float) -> Report:
        begun = start(self._run, self._kind, self._runner)
        if self._recipe.compare.tfmot:
            self._runner.warm("sparsify")
        models = FloatModels(self._runner, self._recipe, begun.source, self._run.seed)
        trials = {profile.name: self._trials(profile, begun, models) for profile in self._profiles}
        chosen = {name: found for name, trial in trials.items() if (found := trial.go()) is not None}
        rows, looks = self._compare(trials, models, begun, chosen)
        artifacts = tuple(
            self._artifact(profile, begun, chosen[profile.name]) for profile in self._profiles if profile.name in chosen
        )
        report = Report(
            model=self._run.model,
            version=self._run.version,
            source=self._folder.keep(Path(self._run.source), f"source{Path(self._run.source).suffix}"),
            source_kind=self._kind,
            recipe=Path(self._run.recipe).name or "default",
            settings=plain(self._recipe),
            seed=self._run.seed,
            data=data_digest(Path(self._run.data)),
            splits=splits_of(begun.dataset),
            test_uses=(*(use for trial in trials.values() for use in trial.test_uses), *looks),
            labels=begun.labels,
            preprocessing=self._run.preprocessing,
            float_model=float_model(begun.source.facts),
            artifacts=artifacts,
            rejected=tuple(rejected(name, trial) for name, trial in trials.items() if name not in chosen),
            candidates=tuple(candidate for trial in trials.values() for candidate in trial.candidates),
            rows=rows,
            pruned=models.pruned,
            layers={name: layers_of(self._runner, trials[name], found) for name, found in chosen.items()},
            passes=pass_times(self._runner),
            host=host_of(self._runner),
            wall_s=time.monotonic() - started,
            peak_memory_mb=max(done.peak_mb for _, done in self._runner.done),
            versions=dict(tools()),
            notes=begun.notes,
        )
        self._folder.write("report.html", page(report).encode())
        self._folder.finish(to_json(report))
        return report

    def _trials(self, profile: Profile, begun: Start, models: FloatModels) -> Trials:
        return Trials(profile, self._recipe.for_profile(profile.name), begun.source, models, self._runner)

    def _compare(
        self, trials: dict[str, Trials], models: FloatModels, begun: Start, chosen: dict[str, Chosen]
    ) -> tuple[tuple[Row, ...], list[TestUse]]:
        """By the numerics of the first profile that has an artifact."""
        by = trials[next(iter(chosen), self._profiles[0].name)]
        comparison = Comparison(by, models, begun.source, self._recipe.compare)
        return comparison.rows(chosen), comparison.test_uses

    def _artifact(self, profile: Profile, begun: Start, chosen: Chosen) -> Artifact:
        made = chosen.made
        names = {
            "model": (made.path, f"{profile.name}.tflite"),
            "parity": (made.model.golden / PARITY, f"{profile.name}.parity.npz"),
            "acceptance": (begun.source.inspected / ACCEPTANCE, ACCEPTANCE),
        }
        files = {role: self._folder.keep(path, name) for role, (path, name) in names.items()}
        return artifact(
            profile,
            files,
            begun.source.facts,
            chosen.measured,
            chosen.gate,
            made=made.words,
            recipe=Path(self._run.recipe).name or "default",
            float_operators=made.float_operators,
        )


def _recipe(run: RunSpec, kind: Kind) -> Recipe:
    """The recipe that was asked for, or the default as far as the source can follow it."""
    if run.recipe:
        recipe = find(run.recipe)
        check_recipe(kind, recipe, Path(run.source).name)
    else:
        recipe = suited(kind, find("default"))
    if run.compare is None:
        return recipe
    compare = msgspec.structs.replace(recipe.compare, tfmot=run.compare, scratch=run.compare)
    return suited(kind, msgspec.structs.replace(recipe, compare=compare))


def _expect(runner: Runner, kind: Kind, recipe: Recipe, profiles: list[Profile]) -> None:
    """What the run takes if every profile's first candidate passes."""
    runner.expect(OPEN[kind], "dataset", "inspect", *("quantize", "evaluate", "evaluate") * (len(profiles) + 1))
    first = {budgets(recipe.for_profile(profile.name))[0] for profile in profiles}
    for _ in range(recipe.seeds * len([budget for budget in first if budget < 1 or recipe.distill])):
        runner.expect("prune", "inspect")
    if recipe.compare.tfmot:
        runner.expect("sparsify", "inspect", "quantize", "evaluate", "evaluate")
    if recipe.compare.scratch:
        runner.expect("distill", "inspect", "quantize", "evaluate", "evaluate")


def _check_readable(data: Path) -> None:
    try:
        size = sum(path.stat().st_size for path in data.rglob("*")) if data.is_dir() else data.stat().st_size
    except OSError as error:
        raise RefusedError(f"{data} cannot be read: {error.strerror or error}") from error
    if size > LIMITS.data_bytes:
        raise RefusedError(f"{data} has {size} bytes; at most {LIMITS.data_bytes} are taken")
