"""The optimizer's benchmark: means with their bounds, ratios in turns, budgets that are counted."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.optimizer import latency, plans, spread


def test_a_mean_has_the_bounds_of_students_t() -> None:
    found = spread.spread([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert found.text == "2.00 ± 2.48 (95 %; by seed 1.00 2.00 3.00)"


def test_differences_are_taken_seed_by_seed() -> None:
    found = spread.paired([90.0, 80.0, 70.0], [89.0, 79.0, 69.0])
    assert found.values == (1.0, 1.0, 1.0)
    assert found.half == 0


def test_one_seed_has_a_mean_and_no_bound() -> None:
    assert math.isinf(spread.spread([0.5]).half)
    assert spread.spread([0.5]).text == "one seed: 0.50"


@pytest.mark.parametrize("count", [0, 11])
def test_a_number_of_seeds_without_a_known_bound_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        spread.spread([0.0] * count)


def test_seeds_of_two_ways_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        spread.paired([1.0, 2.0], [1.0])


def test_a_disturbed_turn_moves_no_latency_ratio() -> None:
    found = latency.summed([(100.0, 10.0), (900.0, 90.0), (110.0, 11.0), (120.0, 3000.0), (100.0, 10.0)])
    assert found.ratio == 10.0
    assert (found.first_us, found.second_us) == (110.0, 11.0)


def test_the_budget_of_training_is_that_of_all_rounds() -> None:
    pruning = plans.plan_of("mlp", 0, quick=False).pruning
    assert plans.epochs_of(pruning) == 2 * pruning.between.epochs + pruning.after.epochs


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("quick", [True, False])
def test_steps_of_a_plan_are_known_before_it_runs(kind: str, quick: bool) -> None:
    teacher, pruning = plans.plan_of(kind, 3, quick)
    assert pruning.between.batch == pruning.after.batch
    assert {tuning.seed for tuning in (teacher, pruning.between, pruning.after)} == {3}
    assert all(tuning.patience > tuning.epochs for tuning in (teacher, pruning.between, pruning.after))
