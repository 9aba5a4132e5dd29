"""Splitting rows: what holds whatever the rows, the shares and the seed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.data import SPLITS
from optimizer.dataset.cut import SHARES, UNLABELLED, WHOLE, Keys, cut, disjoint, plan

seeds = st.integers(0, 2**32)
few_different = st.lists(st.integers(0, 12), min_size=1, max_size=60).map(lambda rows: np.array(rows, np.uint64))
splits = st.dictionaries(st.sampled_from(SPLITS), few_different, min_size=1)


@st.composite
def enough(draw: st.DrawFn) -> Keys:
    """Rows of which at least four differ."""
    drawn = draw(st.lists(st.integers(0, 40), max_size=100))
    return np.array([*drawn, 100, 101, 102, 103], np.uint64)


@given(enough(), seeds)
def test_every_row_lands_in_exactly_one_part_and_equal_rows_in_the_same(keys: Keys, seed: int) -> None:
    parts = cut(keys, SHARES, seed)
    assert list(parts) == list(SHARES)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(keys)))
    assert all(len(rows) and (np.diff(rows) > 0).all() for rows in parts.values())
    for one, other in combinations(parts.values(), 2):
        assert not set(keys[one]) & set(keys[other])


@given(enough(), seeds)
def test_a_seed_gives_the_same_cut_in_whatever_order_rows_come(keys: Keys, seed: int) -> None:
    order = np.random.default_rng(1).permutation(len(keys))
    one, other = cut(keys, SHARES, seed), cut(keys[order], SHARES, seed)
    for split in SHARES:
        assert sorted(keys[one[split]]) == sorted(keys[order][other[split]])


@given(st.integers(200, 3000), seeds)
def test_parts_of_different_rows_have_their_shares(rows: int, seed: int) -> None:
    parts = cut(np.arange(rows, dtype=np.uint64), SHARES, seed)
    for split, share in SHARES.items():
        assert abs(len(parts[split]) - rows * share / 100) <= 1


def test_another_seed_gives_another_cut() -> None:
    keys = np.arange(100, dtype=np.uint64)
    assert not np.array_equal(cut(keys, SHARES, 0)["test"], cut(keys, SHARES, 1)["test"])


def test_fewer_different_rows_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 different rows cannot be split into train, calibration, validation, test"):
        cut(np.array([1, 2, 3, 3, 3], np.uint64), SHARES, 0)


@given(splits)
def test_what_learns_what_chooses_and_what_judges_share_no_row(keys: dict[str, Keys]) -> None:
    masks = disjoint(keys)
    left = {split: set(keys[split][mask]) for split, mask in masks.items()}
    chosen_by = left.get("calibration", set()) | left.get("validation", set())
    for one, other in combinations((left.get("train", set()), chosen_by, left.get("test", set())), 2):
        assert not one & other


@given(splits)
def test_test_stays_whole_and_only_rows_of_another_part_go(keys: dict[str, Keys]) -> None:
    masks = disjoint(keys)
    assert masks.get("test", np.ones(1)).all()
    for split, mask in masks.items():
        others = {"train": ("calibration", "validation", "test"), "test": ()}.get(split, ("test",))
        foreign = {key for other in others for key in keys.get(other, ())}
        assert [key in foreign for key in keys[split]] == (~mask).tolist()


@given(splits)
def test_what_is_disjoint_stays_as_it_is(keys: dict[str, Keys]) -> None:
    once = {split: keys[split][mask] for split, mask in disjoint(keys).items()}
    assert all(mask.all() for mask in disjoint(once).values())


@given(st.dictionaries(st.sampled_from(SPLITS), st.booleans(), min_size=1))
def test_a_plan_gives_validation_and_test_where_it_can_and_never_takes_from_test(labelled: dict[str, bool]) -> None:
    if set(labelled) == {"test"}:
        with pytest.raises(ValueError, match="only rows of test"):
            plan(labelled)
        return
    planned = plan(labelled)
    shares = {} if planned is None else planned.shares
    assert planned is None or planned.donor in {"train", "calibration", "validation"} & set(shares)
    assert not set(shares) & (set(labelled) - ({planned.donor} if planned else set()))
    have = set(labelled) | set(shares)
    assert "validation" in have
    donor_labelled = labelled[planned.donor] if planned else labelled["validation"]
    assert "test" in have or not donor_labelled


def test_rows_that_nobody_has_split_are_cut_by_the_documented_shares() -> None:
    assert plan({WHOLE: True}) == (WHOLE, SHARES)
    assert plan({WHOLE: False}) == (WHOLE, UNLABELLED)
    assert plan({"calibration": False}) == ("calibration", UNLABELLED)
    assert plan({"train": True, "test": True}) == ("train", {"train": 70, "calibration": 5, "validation": 10})
    assert plan({"train": True, "validation": True, "test": True}) is None
