"""The gate: what the paired bound guarantees, and what passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_profiles.profile import Gate
from optimizer.judges import Measured, Paired, judge, loss_bound

FAITHFUL = [Measured("validation", 0.99, 30.0)]


@st.composite
def counts(draw: st.DrawFn) -> Paired:
    rows = draw(st.integers(1, 5000))
    lost = draw(st.integers(0, rows))
    return Paired(rows, lost, draw(st.integers(0, rows - lost)))


@given(counts())
def test_the_bound_is_never_below_the_point_estimate_nor_above_all_rows(paired: Paired) -> None:
    assert paired.loss <= loss_bound(paired) <= 1.0


@given(st.integers(1, 100_000))
def test_without_a_differing_row_the_bound_is_the_closed_form(rows: int) -> None:
    assert loss_bound(Paired(rows, 0, 0)) == pytest.approx(1.6448536**2 / (rows + 1.6448536**2), rel=1e-5)


@given(counts())
def test_more_rows_lost_never_lower_the_bound(paired: Paired) -> None:
    if paired.float_only + paired.artifact_only < paired.rows:
        worse = paired._replace(float_only=paired.float_only + 1)
        assert loss_bound(worse) >= loss_bound(paired) - 1e-9


@given(st.integers(0, 20), st.integers(0, 20), st.integers(50, 400))
def test_the_same_shares_of_ten_times_the_rows_give_a_tighter_bound(lost: int, won: int, rows: int) -> None:
    few, many = Paired(rows, lost, won), Paired(10 * rows, 10 * lost, 10 * won)
    assert loss_bound(many) < loss_bound(few)


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.05, 0.05), (0.01, 0.0)])
def test_the_bound_covers_the_true_loss_about_95_times_in_100(lost: float, won: float) -> None:
    drawn = np.random.default_rng(1).multinomial(400, [lost, won, 1 - lost - won], size=2000)
    covered = np.mean([loss_bound(Paired(400, int(b), int(c))) >= lost - won for b, c, _ in drawn])
    assert 0.93 <= covered <= 1.0


def test_the_point_estimate_decides_and_the_bound_is_shown_beside() -> None:
    gate = Gate(accuracy_loss=0.01)
    verdict = judge(gate, Paired(200, 2, 0), FAITHFUL)
    assert verdict.passed
    assert verdict.loss == 0.01
    assert verdict.bound_95 is not None
    assert verdict.bound_95 > 0.01
    assert "95 % bound" in verdict.reasons[0]


def test_strict_makes_the_bound_decide() -> None:
    gate = Gate(accuracy_loss=0.01, strict=True)
    assert not judge(gate, Paired(200, 2, 0), FAITHFUL).passed
    assert judge(gate, Paired(5000, 10, 8), FAITHFUL).passed


@pytest.mark.parametrize(
    ("measured", "part"),
    [(Measured("validation", 0.9, 30.0), "agreement on validation"), (Measured("validation", 0.99, 3.0), "SQNR")],
)
def test_an_unfaithful_conversion_fails_however_accurate(measured: Measured, part: str) -> None:
    verdict = judge(Gate(), Paired(400, 0, 0), [*FAITHFUL, measured])
    assert not verdict.passed
    assert any(reason.startswith("no: ") and part in reason for reason in verdict.reasons)


def test_without_labels_parity_alone_decides_and_the_reasons_say_so() -> None:
    verdict = judge(Gate(), None, FAITHFUL)
    assert verdict.passed
    assert verdict.loss is None
    assert "parity alone" in verdict.reasons[0]
    assert not judge(Gate(), None, [Measured("validation", 0.1, 30.0)]).passed


def test_against_the_original_only_what_is_said_to_be_judged_decides() -> None:
    far = Measured("validation against the original", 0.5, -3.0, judged=())
    assert judge(Gate(), Paired(400, 0, 0), [*FAITHFUL, far]).passed
    unlike = judge(Gate(), None, [*FAITHFUL, far._replace(judged=("agreement",))])
    assert not unlike.passed
    assert [reason for reason in unlike.reasons if reason.startswith("no: ")] == [
        "no: agreement on validation against the original 0.5000, at least 0.97"
    ]
    assert judge(Gate(), None, [*FAITHFUL, far._replace(agreement=0.98, judged=("agreement",))]).passed


@pytest.mark.parametrize("parities", [[], [Measured("validation", 1.0, 99.0, judged=())]])
def test_where_nothing_is_judged_nothing_passes(parities: list[Measured]) -> None:
    assert not judge(Gate(), None, parities).passed


def test_what_is_no_number_never_passes() -> None:
    assert not judge(Gate(), Paired(400, 0, 0), [Measured("validation", float("nan"), float("nan"))]).passed
