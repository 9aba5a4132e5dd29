"""PURE: where one model stands on this device, as it is reported."""

from __future__ import annotations

from typing import Literal

from agent.contract.messages import DesiredModel, ModelState
from agent.pointers import ModelPointers
from agent.serving import Member
from agent.swap import Swap

Reported = Literal[
    "fetching", "verifying", "staging", "probing", "switching", "watching", "serving", "refused", "failed"
]  # fmt: skip
_GOING: dict[str, Reported] = {
    "listed": "fetching",
    "verifying": "verifying",
    "fetching": "fetching",
    "staging": "staging",
    "draining": "staging",
    "probing": "probing",
    "shadowing": "probing",
    "switching": "switching",
    "watching": "watching",
}


_AWAY = "it left to make room for a new version, and comes back if that fails; requests wait meanwhile"


def model_states(pointers: ModelPointers, swap: Swap | None, member: Member | None) -> list[ModelState]:
    """What serves first, then what is on its way or, if nothing is, what was turned down."""
    going = swap if swap is not None and swap.state in _GOING else None
    serving = pointers.serving
    runtime = member.ready.runtime if member is not None and member.ready is not None else ""
    states = []
    if serving is not None and going is not None and going.alone and member is None:
        states.append(_state(serving.wanted, "staging", reason=_AWAY))
    if serving is not None and member is not None and (going is None or going.target != serving.wanted):
        # Started but not loaded yet: nobody should count on it.
        states.append(_state(serving.wanted, "serving" if runtime else "staging", runtime))
    if going is not None:
        states.append(_state(going.target, _GOING[going.state], runtime if going.state == "watching" else ""))
    else:
        states += _turned_down(pointers, swap)
    return states


def _turned_down(pointers: ModelPointers, swap: Swap | None) -> list[ModelState]:
    serving, refused = pointers.serving, pointers.refused
    if refused is not None and (serving is None or serving.wanted != refused):
        outcome: Reported = "refused" if pointers.refused_state == "refused" else "failed"
        return [_state(refused, outcome, reason=pointers.refused_reason, cause=pointers.refused_cause)]
    if swap is not None and swap.state == "failed":
        return [_state(swap.target, "failed", reason=swap.reason)]
    return []


def _state(wanted: DesiredModel, state: Reported, runtime: str = "", reason: str = "", cause: str = "") -> ModelState:
    return ModelState(
        model=wanted.model,
        version=wanted.version,
        artifact=wanted.artifact,
        manifest=wanted.manifest,
        profile=wanted.profile,
        state=state,
        runtime=runtime,
        reason=reason,
        cause=cause,
    )
