"""One run: the source is inspected once, converted per kind of numerics, gated per profile, reported.

This module runs in the serving process: it imports no TensorFlow and no numpy; steps do the work in children.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from firmware_profiles.profile import Numerics, Profile
from optimizer.errors import CancelledError, OptimizerError, RefusedError
from optimizer.folder import Folder, describe, digest_of
from optimizer.report import Artifact, File, FloatModel, Rejected, Report, to_builtins, to_json
from optimizer.runs import RunSpec, read_profiles
from optimizer.settings import LIMITS
from optimizer.sources import check_static
from optimizer.steps import Steps
from optimizer.verdicts import assess
from optimizer.work_files import ACCEPTANCE, PARITY

Tell = Callable[[str, str, float, str], None]
"""step, profile, fraction of the whole run, detail."""

_TOOLS = ("lepta", "tensorflow", "keras", "ai-edge-litert", "numpy")


def optimize(run: RunSpec, out: Path, steps: Steps, tell: Tell) -> dict[str, Any]:
    """Do one run and return its report, which also lies in `out` with the files it names.

    A profile that cannot be served is rejected with reasons and does not stop the others. Raises OptimizerError when
    nothing can be said at all: bad model, bad data, cancelled.
    """
    started = time.monotonic()
    profiles = read_profiles(run)
    tell("check", "", 0.0, "reading the model file")
    check_static(Path(run.source))
    _check_readable(run.data)
    with Folder(out) as folder:
        return _Run(run, profiles, folder, steps, tell).go(started)


class _Run:
    def __init__(self, run: RunSpec, profiles: list[Profile], folder: Folder, steps: Steps, tell: Tell) -> None:
        self._run, self._profiles, self._folder = run, profiles, folder
        self._steps, self._tell = steps, tell
        self._peak_mb = 0.0
        self._steps_before = 0
        self._total = 1 + 2 * len(profiles)
        self._converted: dict[Numerics, Path | OptimizerError] = {}

    def go(self, started: float) -> dict[str, Any]:
        source = self._inspect()
        shared = {
            "source": self._folder.keep(Path(self._run.source), "source.keras"),
            "parity": self._folder.keep(self._folder.work / PARITY, PARITY),
            "acceptance": self._folder.keep(self._folder.work / ACCEPTANCE, ACCEPTANCE),
        }
        assessed = []
        for at, profile in enumerate(self._profiles):
            self._steps_before = 1 + 2 * at
            assessed.append(self._profile(profile, source, shared))
        report = Report(
            model=self._run.model,
            version=self._run.version,
            source=shared["source"],
            data=digest_of(Path(self._run.data)),
            labels=self._run.labels,
            preprocessing=self._run.preprocessing,
            float_model=_float_model(source, shared["source"].size),
            artifacts=tuple(found for found in assessed if isinstance(found, Artifact)),
            rejected=tuple(found for found in assessed if isinstance(found, Rejected)),
            wall_s=time.monotonic() - started,
            peak_memory_mb=self._peak_mb,
            versions=_versions(),
            note="" if source["judged"] else "no classes and labels to judge by: parity alone decided",
        )
        self._folder.finish(to_json(report))
        self._tell("report", "", 1.0, f"{len(report.artifacts)} artifacts, {len(report.rejected)} rejected")
        return to_builtins(report)

    def _inspect(self) -> dict[str, Any]:
        run = self._run
        arguments = {
            "source": run.source,
            "data": run.data,
            "work": str(self._folder.work),
            "labels": list(run.labels),
            "previous_acceptance": run.previous_acceptance,
            "seed": run.seed,
        }
        return self._step("inspect", "", arguments)

    def _profile(self, profile: Profile, source: dict[str, Any], shared: dict[str, File]) -> Artifact | Rejected:
        """Convert and evaluate for one profile. What the model or the machine cannot do rejects the profile only."""
        try:
            path = self._convert(profile)
            self._steps_before += 1
            measured = self._evaluate(profile, path, source)
        except CancelledError:
            raise
        except OptimizerError as error:
            return Rejected(profile=profile.name, reasons=(str(error),))
        files = {"model": describe(path), "parity": shared["parity"], "acceptance": shared["acceptance"]}
        found = assess(profile, files, source, measured)
        if isinstance(found, Artifact):
            self._folder.keep(path, path.name)
        return found

    def _convert(self, profile: Profile) -> Path:
        """Profiles of equal numerics share one conversion, and its failure."""
        if profile.numerics not in self._converted:
            try:
                self._converted[profile.numerics] = self._converted_file(profile)
            except CancelledError:
                raise
            except OptimizerError as error:
                self._converted[profile.numerics] = error
        found = self._converted[profile.numerics]
        if isinstance(found, OptimizerError):
            raise found
        return found

    def _converted_file(self, profile: Profile) -> Path:
        numerics = profile.numerics
        names = "-".join((numerics.weights, numerics.input, numerics.output))
        target = self._folder.work / f"{names}.tflite"
        first = self._folder.work / f"{names}.first" if numerics.weights == "power-of-two" else target
        self._step(
            "quantize",
            profile.name,
            {
                "source": self._run.source,
                "data": self._run.data,
                "target": str(first),
                "weights": "per-channel" if numerics.weights == "per-channel" else "per-tensor",
                "input": numerics.input,
                "output": numerics.output,
            },
        )
        if first != target:
            self._step("power-of-two", profile.name, {"source": str(first), "target": str(target)})
        return target

    def _evaluate(self, profile: Profile, path: Path, source: dict[str, Any]) -> dict[str, Any]:
        arguments = {
            "artifact": str(path),
            "data": self._run.data,
            "work": str(self._folder.work),
            "inputs": source["inputs"],
            "runtimes": list(profile.runtime.runtimes),
            "threads": profile.runtime.threads,
            "judged": source["judged"],
        }
        return self._step("evaluate", profile.name, arguments)

    def _step(self, step: str, profile: str, arguments: dict[str, Any]) -> dict[str, Any]:
        def progress(fraction: float, detail: str) -> None:
            self._tell(step, profile, min(0.99, (self._steps_before + fraction) / self._total), detail)

        finished = self._steps.run(step, arguments, progress)
        self._peak_mb = max(self._peak_mb, finished.peak_memory_mb)
        return finished.result


def _float_model(source: dict[str, Any], size: int) -> FloatModel:
    return FloatModel(
        parameters=source["parameters"],
        macs=source["macs"],
        bytes=size,
        accuracy_validation=source["accuracy_validation"],
        accuracy_test=source["accuracy_test"],
        accuracy_acceptance=source["accuracy_acceptance"],
    )


def _check_readable(data: str) -> None:
    try:
        size = Path(data).stat().st_size
    except OSError as error:
        raise RefusedError(f"{data} cannot be read: {error.strerror or error}") from error
    if size > LIMITS.data_bytes:
        raise RefusedError(f"{data} has {size} bytes; at most {LIMITS.data_bytes} are taken")


def _versions() -> dict[str, str]:
    found = {}
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            found[tool] = "not installed"
    return found
