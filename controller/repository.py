"""PURE: how each version of a model stands with the fleet, in the words of Triton's model repository extension:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.contract.messages import ModelState
from agent.contract.oip_models import LOADING, READY, UNAVAILABLE, UNLOADING, Standing
from controller.known import Known

_GIVEN_UP = frozenset({"refused", "failed"})


@dataclass(frozen=True)
class Built:
    """A version, and what is in the way of bringing it to devices; empty if nothing is."""

    version: int
    lacks: str = ""


def standings(model: str, versions: Iterable[Built], devices: Sequence[Known]) -> list[Standing]:
    """One for each version, in their order."""
    approved = [known for known in devices if known.approved]
    wanted = any(_wants(known, model) for known in approved)
    return [_standing(model, built, approved, wanted) for built in versions]


def serving(model: str, devices: Iterable[Known]) -> set[int]:
    """The versions of a model that requests are answered by."""
    found = (known.serving(model) for known in devices if _answers(known))
    return {state.version for state in found if state is not None}


def absent(model: str, version: int, devices: Iterable[Known]) -> list[str]:
    """Devices that are to run a version and do not, each with what it says."""
    return [
        f"{known.name}: {_why(known, model, version)}"
        for known in devices
        if known.approved and _wants(known, model) == version and not _serves(known, model, version)
    ]


def left(model: str, devices: Iterable[Known]) -> tuple[list[str], list[str]]:
    """Devices that still answer for a model which they are not to run; and those that are offline, and follow when they
    return."""
    having = [known for known in devices if known.approved and known.serving(model) and not _wants(known, model)]
    return [known.name for known in having if known.online], [known.name for known in having if not known.online]


def _standing(model: str, built: Built, devices: list[Known], wanted: bool) -> Standing:
    version = built.version
    name = str(version)
    if any(_answers(known) and _serves(known, model, version) for known in devices):
        return Standing(model, name, READY) if wanted else Standing(model, name, UNLOADING, "no device is to run it")
    meant = [known for known in devices if _wants(known, model) == version]
    told = "; ".join(f"{known.name}: {_why(known, model, version)}" for known in meant)
    if any(known.online and not known.record.drain and not _gave_up(known, model, version) for known in meant):
        return Standing(model, name, LOADING, told)
    refused = [f"{known.name}: {_why(known, model, version)}" for known in devices if _gave_up(known, model, version)]
    return Standing(model, name, UNAVAILABLE, built.lacks or told or "; ".join(refused) or "no device is to run it")


def _wants(known: Known, model: str) -> int:
    return next((wanted.version for wanted in known.record.desired if wanted.model == model), 0)


def _answers(known: Known) -> bool:
    return known.approved and known.online and not known.record.drain


def _serves(known: Known, model: str, version: int) -> bool:
    state = known.serving(model)
    return state is not None and state.version == version


def _reported(known: Known, model: str, version: int) -> ModelState | None:
    states = [state for state in known.record.reported if state.model == model and state.version == version]
    return states[-1] if states else None


def _gave_up(known: Known, model: str, version: int) -> bool:
    state = _reported(known, model, version)
    return state is not None and state.state in _GIVEN_UP


def _why(known: Known, model: str, version: int) -> str:
    if not known.online:
        return "offline"
    state = _reported(known, model, version)
    if state is not None and state.state in _GIVEN_UP:
        return f"{state.state}: {state.reason}"
    if known.record.drain:
        return "draining"
    return state.state if state is not None else "not told yet"
