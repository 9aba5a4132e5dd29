"""One run: the source is inspected once, converted per kind of numerics, gated per profile, reported.

This module runs in the serving process: it imports no TensorFlow and no numpy; steps do the work in children.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from firmware_profiles.profile import Numerics, Profile
from optimizer.errors import CancelledError, OptimizerError, RefusedError
from optimizer.folder import Folder, describe, digest_of
from optimizer.report import Artifact, File, FloatModel, Rejected, Report, to_builtins, to_json
from optimizer.runner import Done, Runner, Tell, tools
from optimizer.runs import RunSpec, read_profiles
from optimizer.settings import LIMITS
from optimizer.sources import check_static
from optimizer.steps import Steps
from optimizer.verdicts import assess
from optimizer.work_files import ACCEPTANCE, MODEL, OUTPUTS, PARITY


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
        self._run, self._profiles, self._folder, self._tell = run, profiles, folder, tell
        self._data = Path(run.data)
        self._runner = Runner(steps, folder.work, None, tell)
        self._runner.expect("inspect", *("quantize", "evaluate") * len(profiles))
        self._converted: dict[Numerics, Path | OptimizerError] = {}

    def go(self, started: float) -> dict[str, Any]:
        inspected = self._inspect()
        source, golden = inspected.manifest, inspected.folder
        shared = {
            "source": self._folder.keep(Path(self._run.source), "source.keras"),
            "parity": self._folder.keep(golden / PARITY, PARITY),
            "acceptance": self._folder.keep(golden / ACCEPTANCE, ACCEPTANCE),
        }
        assessed = [self._profile(profile, source, golden, shared) for profile in self._profiles]
        report = Report(
            model=self._run.model,
            version=self._run.version,
            source=shared["source"],
            data=digest_of(self._data),
            labels=self._run.labels,
            preprocessing=self._run.preprocessing,
            float_model=_float_model(source, shared["source"].size),
            artifacts=tuple(found for found in assessed if isinstance(found, Artifact)),
            rejected=tuple(found for found in assessed if isinstance(found, Rejected)),
            wall_s=time.monotonic() - started,
            peak_memory_mb=max(done.peak_mb for _, done in self._runner.done),
            versions=dict(tools()),
            note="" if source["judged"] else "no classes and labels to judge by: parity alone decided",
        )
        self._folder.finish(to_json(report))
        self._tell("report", "", 1.0, f"{len(report.artifacts)} artifacts, {len(report.rejected)} rejected")
        return to_builtins(report)

    def _inspect(self) -> Done:
        inputs = {"source": Path(self._run.source), "data": self._data}
        if self._run.previous_acceptance is not None:
            inputs["acceptance"] = Path(self._run.previous_acceptance)
        return self._runner.do("inspect", inputs, {"labels": list(self._run.labels), "seed": self._run.seed})

    def _profile(
        self, profile: Profile, source: dict[str, Any], golden: Path, shared: dict[str, File]
    ) -> Artifact | Rejected:
        """Convert and evaluate for one profile. What the model or the machine cannot do rejects the profile only."""
        try:
            path = self._convert(profile)
            measured = self._evaluate(profile, path, source, golden)
        except CancelledError:
            raise
        except OptimizerError as error:
            return Rejected(profile=profile.name, reasons=(str(error),))
        name = f"{'-'.join((profile.numerics.weights, profile.numerics.input, profile.numerics.output))}.tflite"
        kept = self._folder.work / name
        shutil.copyfile(path, kept)
        files = {"model": describe(kept), "parity": shared["parity"], "acceptance": shared["acceptance"]}
        found = assess(profile, files, source, measured)
        if isinstance(found, Artifact):
            self._folder.keep(kept, name)
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
        done = self._runner.do(
            "quantize",
            {"source": Path(self._run.source), "data": self._data},
            {
                "weights": "per-channel" if numerics.weights == "per-channel" else "per-tensor",
                "input": numerics.input,
                "output": numerics.output,
            },
            profile.name,
        )
        if numerics.weights == "power-of-two":
            done = self._runner.do("power-of-two", {"source": done.folder / MODEL}, {}, profile.name)
        return done.folder / MODEL

    def _evaluate(self, profile: Profile, path: Path, source: dict[str, Any], golden: Path) -> dict[str, Any]:
        inputs = {
            "artifact": path,
            "data": self._data,
            "outputs": golden / OUTPUTS,
            "parity": golden / PARITY,
            "acceptance": golden / ACCEPTANCE,
        }
        settings = {
            "inputs": source["inputs"],
            "runtimes": list(profile.runtime.runtimes),
            "threads": profile.runtime.threads,
            "judged": source["judged"],
        }
        return self._runner.do("evaluate", inputs, settings, profile.name).manifest


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
