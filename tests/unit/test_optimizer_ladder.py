"""Which candidates are tried, in which order, and when a run stops trying."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.ladder import budgets, ways
from optimizer.recipe import Override, Quantize, When

WHEN: list[When] = ["never", "if-needed", "always"]


@given(st.lists(st.floats(0.01, 1.0), max_size=8))
def test_budgets_grow_and_end_with_the_model_as_it_is(given_budgets: list[float]) -> None:
    found = budgets(Override(budgets=tuple(given_budgets)))
    assert found == sorted(set(found))
    assert found[-1] == 1.0
    assert set(given_budgets) <= set(found)


@given(st.sampled_from(WHEN), st.sampled_from(WHEN), st.booleans(), st.booleans())
def test_there_is_always_a_way_and_none_that_was_not_allowed(
    qat: When, mixed: When, trainable: bool, floats: bool
) -> None:
    found = [way.numerics for way in ways(0.5, Quantize(qat=qat, mixed=mixed), trainable=trainable, mixed=floats)]
    assert found
    assert len(found) == len(set(found))
    assert "qat" not in found or (trainable and qat != "never")
    assert "mixed" not in found or (floats and mixed != "never")
    assert found[0] == "ptq" or "always" in (qat, mixed)


@pytest.mark.parametrize("scheme", ["int16x8", "float16", "dynamic"])
def test_other_schemes_have_one_way(scheme: Any) -> None:
    (way,) = ways(1.0, Quantize(scheme=scheme, qat="always", mixed="always"), trainable=True, mixed=True)
    assert way.numerics == "ptq"


def test_a_way_says_in_words_how_the_artifact_was_made() -> None:
    found = [str(way) for way in ways(0.25, Quantize(), trainable=True, mixed=True)]
    assert found == [
        "pruned to 25 %, int8",
        "pruned to 25 %, int8 trained as such",
        "pruned to 25 %, int8 with some operators float",
    ]
    assert str(ways(1.0, Quantize(), trainable=False, mixed=False)[0]) == "int8"
