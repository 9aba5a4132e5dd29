"""Guarantees of the choice where a candidate is loaded, and of the sequential test of a shadow."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import free, room, sprt
from agent.contract.golden import agreeing
from agent.contract.manifest import Limits
from tests import builders

MEMORY = room.Memory(free_mb=50, serving_mb=20, reserve_mb=10)


@pytest.mark.parametrize(
    ("needed", "place"), [(40, "beside"), (40.1, "instead"), (60, "instead"), (60.1, "none"), (1e6, "none")]
)
def test_a_candidate_goes_beside_what_serves_or_instead_of_it_or_nowhere(needed: float, place: str) -> None:
    assert room.choose(MEMORY, needed) == place


def test_where_nothing_serves_nothing_can_leave() -> None:
    assert room.choose(msgspec.structs.replace(MEMORY, serving_mb=0), 45) == "none"


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 100), st.floats(0, 1e4))
def test_more_free_memory_never_makes_the_place_worse(
    free_mb: float, more: float, serving: float, needed: float
) -> None:
    places = ("none", "instead", "beside")
    little = room.Memory(free_mb=free_mb, serving_mb=serving, reserve_mb=5)
    much = msgspec.structs.replace(little, free_mb=free_mb + more)
    assert places.index(room.choose(much, needed)) >= places.index(room.choose(little, needed))


def test_what_a_model_needs_is_its_limit_or_else_follows_its_file() -> None:
    content = builders.classifier(1)
    manifest = builders.manifest_for(content, (b"p", b"a"))
    assert room.needed_mb(manifest) == pytest.approx(12, abs=0.1)
    assert room.needed_mb(msgspec.structs.replace(manifest, limits=Limits(memory_mb=99))) == 99
    assert room.estimate_mb(4 * 2**20) == 24


def test_the_limit_of_a_control_group_counts_and_its_cache_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("104857600\n")
    (tmp_path / "memory.current").write_text("62914560\n")
    (tmp_path / "memory.stat").write_text("anon 52428800\ninactive_file 10485760\n")
    assert free.left_in(tmp_path) == 50
    (tmp_path / "memory.max").write_text("max\n")
    assert free.left_in(tmp_path) == float("inf")
    assert free.free_mb() > 10


TEST = sprt.Test(good=0.95, bad=0.75)


def decide(share: float, seed: int, most: int = 2000) -> tuple[sprt.Verdict, int]:
    draw, agreed = random.Random(seed), 0
    for compared in range(1, most + 1):
        agreed += draw.random() < share
        if (verdict := sprt.verdict(TEST, agreed, compared)) != "go on":
            return verdict, compared
    return sprt.leaning(TEST, agreed, most), most


def test_good_and_bad_candidates_are_told_apart_as_often_as_promised_and_soon() -> None:
    good = [decide(0.95, seed) for seed in range(600)]
    bad = [decide(0.75, seed) for seed in range(600)]
    assert sum(verdict == "differs" for verdict, _ in good) <= 12
    assert sum(verdict == "agrees" for verdict, _ in bad) <= 12
    assert sum(compared for _, compared in [*good, *bad]) / 1200 < 60


def test_a_broken_candidate_is_found_within_ten_comparisons() -> None:
    assert max(decide(0.1, seed)[1] for seed in range(200)) <= 10


def test_with_shares_of_one_and_nothing_a_single_difference_decides() -> None:
    strict = sprt.Test(good=1.0, bad=0.0)
    assert sprt.verdict(strict, 0, 1) == "differs"
    assert sprt.verdict(strict, 1, 1) == "agrees"


def test_what_was_never_compared_is_not_held_against_a_candidate() -> None:
    assert sprt.leaning(TEST, 0, 0) == "agrees"
    assert sprt.leaning(TEST, 1, 3) == "differs"


def test_rows_agree_by_class_or_where_there_are_none_by_value() -> None:
    import numpy as np

    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], np.float32)
    other = np.array([[0.4, 0.6], [0.1, 0.9], [np.nan, 0.6]], np.float32)
    assert agreeing({"s": scores}, {"s": other}) == 1
    values = np.array([[10.0], [10.0]], np.float32)
    assert agreeing({"y": values}, {"y": np.array([[10.5], [12.0]], np.float32)}) == 1
