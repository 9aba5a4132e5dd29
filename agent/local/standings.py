"""PURE: where versions stand on this device, in the words of Triton's model repository extension."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.contract.messages import ModelState
from agent.contract.oip_models import LOADING, READY, UNAVAILABLE, Standing

_ANSWERS = frozenset({"serving", "watching"})
_GIVEN_UP = frozenset({"refused", "failed"})


def standings(states: Iterable[ModelState], live: Collection[str]) -> list[Standing]:
    """One for each version here. `live`: models that have a worker which answers."""
    return [_standing(state, state.model in live) for state in states]


def _standing(state: ModelState, live: bool) -> Standing:
    name, version = state.model, str(state.version)
    if state.state in _ANSWERS:
        return Standing(name, version, READY) if live else Standing(name, version, LOADING, "its worker starts anew")
    if state.state in _GIVEN_UP:
        return Standing(name, version, UNAVAILABLE, f"{state.state}: {state.reason}")
    return Standing(name, version, LOADING, state.reason or state.state)
