"""From what a run has done to the parts of its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from firmware_profiles.profile import Facts
from optimizer.errors import CancelledError, OptimizerError
from optimizer.folder import digest_of
from optimizer.report import FloatModel, Layer, PassTime, Rejected, Split
from optimizer.runner import Runner, folder_digest
from optimizer.trials import Chosen, Trials


def float_model(facts: Mapping[str, Any]) -> FloatModel:
    return FloatModel(
        parameters=facts["parameters"],
        macs=facts["macs"],
        bytes=4 * facts["parameters"],
        accuracy_validation=facts["accuracy_validation"],
        accuracy_test=facts["accuracy_test"],
        accuracy_acceptance=facts["accuracy_acceptance"],
    )


def splits_of(dataset: Mapping[str, Any]) -> tuple[Split, ...]:
    return tuple(
        Split(name=name, rows=part["rows"], digest=part["digest"], labelled=part["labelled"])
        for name, part in dataset["splits"].items()
    )


def rejected(profile: str, trials: Trials) -> Rejected:
    return Rejected(profile=profile, reasons=trials.reasons, gate=trials.gate)


def layers_of(runner: Runner, trials: Trials, chosen: Chosen) -> tuple[Layer, ...]:
    """Errors by operator, for artifacts where they can be had."""
    try:
        found = trials.errors(chosen.made)
    except CancelledError:
        raise
    except OptimizerError:
        return ()
    kept = set(chosen.made.float_operators)
    return tuple(
        Layer(**{name: layer[name] for name in Layer.__struct_fields__[:-1]}, float_kept=layer["name"] in kept)
        for layer in found["layers"]
    )


def pass_times(runner: Runner) -> tuple[PassTime, ...]:
    return tuple(
        PassTime(name=name, remembered=done.remembered, wall_s=done.wall_s, peak_mb=done.peak_mb)
        for name, done in runner.done
    )


def host_of(runner: Runner) -> str:
    """Where figures were measured, by what the measuring pass said."""
    for name, done in runner.done:
        if name == "evaluate":
            facts = msgspec.convert(done.manifest["host"], Facts)
            return f"{facts.machine}, {facts.cpus} CPUs, {facts.memory_mb} MB, {facts.board or facts.system}"
    return ""


def data_digest(path: Path) -> str:
    return folder_digest(path) if path.is_dir() else digest_of(path)
