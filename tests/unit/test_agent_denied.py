"""Guarantees of what an agent remembers of bad versions: a roll back outlives restarts and unrelated changes."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.manifest import FileRef
from agent.contract.messages import Desired, DesiredModel
from agent.pointers import ModelPointers, Pointer, Pointers
from agent.states import model_states
from agent.swap import Swap

ONE, TWO, OTHER = (
    DesiredModel(model=name, version=version, artifact=f"{version}{name[0]}" * 32, manifest="ab" * 32, profile="p")
    for name, version in (("digits", 1), ("digits", 2), ("other", 1))
)
SERVING = Pointer(wanted=ONE, files={"model": FileRef("cd" * 32, 1)})


def after(state: str, *generations: tuple[DesiredModel, ...]) -> DesiredModel | None:
    """What is still denied: version 2 was turned down in generation 1, then these came."""
    denied = ModelPointers(serving=SERVING, refused=TWO, refused_state=state, refused_reason="because")
    pointers = Pointers(generation=1, desired=(TWO,), models={"digits": denied})
    for number, models in enumerate(generations, 2):
        pointers = pointers.accepting(Desired(agent="a", generation=number, models=models))
    return pointers.of("digits").refused


def test_a_rolled_back_version_stays_denied_while_other_things_change() -> None:
    assert after("failed", (TWO, OTHER), (TWO,), (TWO, OTHER)) == TWO


@pytest.mark.parametrize("between", [(ONE,), (OTHER,), ()])
def test_a_rolled_back_version_may_be_tried_once_a_generation_names_it_anew(between: tuple[DesiredModel, ...]) -> None:
    assert after("failed", between, (TWO,)) is None


def test_a_version_that_its_probe_refused_is_probed_again_in_the_next_generation() -> None:
    assert after("refused", (TWO, OTHER)) is None


def test_the_window_in_which_nothing_serves_is_told_as_such() -> None:
    pointers = ModelPointers(serving=SERVING)
    swap = Swap(target=TWO, state="draining", alone=True)
    told = [(state.version, state.state, bool(state.reason)) for state in model_states(pointers, swap, None)]
    assert told == [(1, "staging", True), (2, "staging", False)]
    probing = msgspec.structs.replace(swap, state="shadowing", alone=False)
    assert [state.state for state in model_states(pointers, probing, None)] == ["probing"]
