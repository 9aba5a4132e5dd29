"""From measurements of a candidate to a verdict, and to an artifact's place in the report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from agent.contract.manifest import Acceptance, Limits, Parity
from agent.contract.tensors import TensorSpec
from firmware_profiles.profile import Facts, Profile, match
from optimizer.judges import Measured, Paired, judge
from optimizer.report import Artifact, File, GateResult, Parities
from optimizer.settings import LIMITS


class Verdict(NamedTuple):
    """`problems` are what stands against it; `repairable`: other numerics of the same model may still pass."""

    problems: tuple[str, ...]
    repairable: bool
    gate: GateResult

    @property
    def passed(self) -> bool:
        return not self.problems


def assess(profile: Profile, source: Mapping[str, Any], measured: Mapping[str, Any], size: int) -> Verdict:
    """Judge what the passes `inspect` (`source`) and `evaluate` (`measured`) say against the profile. `size`: bytes."""
    gate = _gate(profile, measured)
    soft = [*_failed(gate), *_unacceptable(acceptance_for(profile, source["accuracy_acceptance"]), measured)]
    hard = [*_operators(profile, measured), *_budgets(profile, size, measured)]
    return Verdict(tuple(soft + hard), bool(soft) and not hard, gate)


def artifact(
    profile: Profile,
    files: dict[str, File],
    source: Mapping[str, Any],
    measured: Mapping[str, Any],
    gate: GateResult,
    *,
    made: str,
    recipe: str,
    float_operators: tuple[str, ...],
) -> Artifact:
    """The report's entry of a released candidate."""
    parities = msgspec.convert(measured["parities"], tuple[Parities, ...])
    converted = _of_conversion(parities)
    return Artifact(
        profile=profile.name,
        made=made,
        recipe=recipe,
        files=files,
        inputs=msgspec.convert(measured["inputs"], tuple[TensorSpec, ...]),
        outputs=msgspec.convert(measured["outputs"], tuple[TensorSpec, ...]),
        operators=tuple(measured["operators"]),
        bytes=files["model"].size,
        bytes_before=4 * source["parameters"],
        parameters=measured["parameters"],
        parameters_before=source["parameters"],
        macs=measured["macs"],
        macs_before=source["macs"],
        accuracy_float=measured["accuracy_float"],
        accuracy_int8=measured["accuracy_int8"],
        agreement=converted.agreement,
        sqnr_db=converted.sqnr_db,
        parities=parities,
        float_operators=float_operators,
        gate=gate,
        latency_ms=measured["latency_ms"],
        latency_runtime=measured["latency_runtime"],
        latency_host=_host_name(profile, measured),
        memory_mb=measured["memory_mb"],
        parity=Parity(agreement=profile.gate.agreement, sqnr_db=profile.gate.sqnr_db),
        acceptance=acceptance_for(profile, source["accuracy_acceptance"]),
        runtimes=profile.runtime.runtimes,
        threads=profile.runtime.threads,
        limits=Limits(memory_mb=profile.budgets.memory_mb, latency_ms=profile.budgets.latency_ms),
    )


def acceptance_for(profile: Profile, float_accuracy: float | None) -> Acceptance:
    """What devices ask of the artifact on the acceptance set; nothing where there are no labels to ask by."""
    if float_accuracy is None:
        return Acceptance(minimum=0.0, tolerated_loss=1.0)
    margin = profile.gate.accuracy_loss
    tolerated = max(margin, LIMITS.tolerated_loss)
    return Acceptance(minimum=max(0.0, float_accuracy - tolerated), tolerated_loss=tolerated)


def _gate(profile: Profile, measured: Mapping[str, Any]) -> GateResult:
    paired = None if measured["paired"] is None else Paired(**measured["paired"])
    verdict = judge(profile.gate, paired, [Measured(**parity) for parity in measured["parities"]])
    return GateResult(
        passed=verdict.passed,
        reasons=verdict.reasons,
        loss=verdict.loss,
        margin=profile.gate.accuracy_loss,
        bound_95=verdict.bound_95,
        strict=profile.gate.strict,
        rows=paired.rows if paired else 0,
    )


def _failed(gate: GateResult) -> list[str]:
    return [reason.removeprefix("no: ") for reason in gate.reasons if reason.startswith("no: ")]


def _operators(profile: Profile, measured: Mapping[str, Any]) -> list[str]:
    allowed = set(profile.operators)
    strange = [op for op in measured["operators"] if allowed and op not in allowed]
    if not strange:
        return []
    return [f"operators {', '.join(strange)} are not allowed by {profile.name}; it allows {', '.join(sorted(allowed))}"]


def _budgets(profile: Profile, size: int, measured: Mapping[str, Any]) -> list[str]:
    """Latency and memory are judged only where this host is of the profile's class; elsewhere they say nothing."""
    budgets, problems = profile.budgets, []
    if budgets.file_kb and size > budgets.file_kb * 1024:
        problems.append(f"file of {size / 1024:.1f} KB, the budget is {budgets.file_kb:g} KB")
    if not match(profile, msgspec.convert(measured["host"], Facts)).fits:
        return problems
    if budgets.memory_mb and measured["memory_mb"] > budgets.memory_mb:
        problems.append(f"memory of {measured['memory_mb']:.1f} MB, the budget is {budgets.memory_mb:g} MB")
    if budgets.latency_ms and measured["latency_ms"] > budgets.latency_ms:
        problems.append(f"latency of {measured['latency_ms']:.2f} ms, the budget is {budgets.latency_ms:g} ms")
    return problems


def _unacceptable(acceptance: Acceptance, measured: Mapping[str, Any]) -> list[str]:
    accuracy = measured["accuracy_acceptance"]
    if accuracy is None or accuracy >= acceptance.minimum:
        return []
    return [f"accuracy of {accuracy:.4f} on the acceptance set, devices would ask for {acceptance.minimum:.4f}"]


def _of_conversion(parities: tuple[Parities, ...]) -> Parities:
    """Not against the original of a pruned model: that says nothing of the conversion."""
    return next((parity for parity in parities if parity.where == "validation"), parities[0])


def _host_name(profile: Profile, measured: Mapping[str, Any]) -> str:
    facts = msgspec.convert(measured["host"], Facts)
    fits = "of this profile's class" if match(profile, facts).fits else "not of this profile's class: shown, not judged"
    return f"{facts.machine}, {facts.cpus} CPUs, {fits}"
