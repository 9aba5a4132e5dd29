"""Ratios under a budget: what must hold for any curves and any costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.prune.budget import BudgetError, Curve, Ratios, allowed, choose

losses = st.floats(-0.5, 5, allow_nan=False)
curves = st.lists(losses, min_size=3, max_size=3).map(lambda lost: list(zip((0.3, 0.6, 0.9), lost, strict=True)))
groups = st.dictionaries(st.sampled_from("abcdef"), st.tuples(curves, st.floats(1, 1000)), min_size=1)
Groups = dict[str, tuple[list[tuple[float, float]], float]]


def cost_of(found: Groups, ratios: Ratios) -> float:
    return sum(weight * (1 - ratios.get(name, 0.0)) for name, (_, weight) in found.items())


@given(groups, st.floats(0.15, 1))
def test_the_budget_is_met_and_nearly_used_up(found: Groups, share: float) -> None:
    whole = cost_of(found, {})
    ratios = choose({name: curve for name, (curve, _) in found.items()}, lambda r: cost_of(found, r), share * whole)
    assert set(ratios) == set(found)
    assert all(0 <= ratio <= 0.9 for ratio in ratios.values())
    assert cost_of(found, ratios) <= share * whole
    if share == 1:
        assert not any(ratios.values())


@given(groups, st.floats(0.15, 1), st.floats(0.15, 1))
def test_a_smaller_budget_cuts_no_group_less(found: Groups, one: float, other: float) -> None:
    curves_of = {name: curve for name, (curve, _) in found.items()}
    whole = cost_of(found, {})
    less, more = (
        choose(curves_of, lambda r: cost_of(found, r), share * whole) for share in (min(one, other), max(one, other))
    )
    assert all(less[name] >= more[name] - 1e-6 for name in found)


@given(curves, st.floats(0, 5), st.floats(0, 5))
def test_tolerating_more_allows_at_least_as_much(curve: Curve, one: float, other: float) -> None:
    assert allowed(curve, min(one, other)) <= allowed(curve, max(one, other)) <= 0.9


@given(groups, st.floats(0, 0.09))
def test_a_budget_out_of_reach_is_refused_with_what_can_be_reached(found: Groups, share: float) -> None:
    whole = cost_of(found, {})
    with pytest.raises(BudgetError, match="larger budget"):
        choose({name: curve for name, (curve, _) in found.items()}, lambda r: cost_of(found, r), share * whole)


def test_a_sensitive_group_is_cut_less_than_a_robust_one() -> None:
    found = {"robust": [(0.5, 0.01), (0.9, 0.1)], "sensitive": [(0.5, 1.0), (0.9, 3.0)]}
    ratios = choose(found, lambda r: 2 - r["robust"] - r["sensitive"], 1.2)
    assert ratios["robust"] > 0.7
    assert ratios["sensitive"] < 0.1


def test_between_two_points_of_a_curve_a_straight_line_is_followed() -> None:
    assert allowed([(0.5, 1.0), (1.0, 3.0)], 2.0) == pytest.approx(0.75)
    assert allowed([(0.5, 1.0), (1.0, 0.5)], 0.5) == pytest.approx(0.25)
