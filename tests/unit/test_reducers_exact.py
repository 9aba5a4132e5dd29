"""Sums of floats as if nothing were ever rounded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.contract.tensors import TensorSpec
from controller.reducers.exact import SQUARE_UNIT, UNIT, as_floats, column_sums, gram, square_sums
from controller.reducers.face import About, Array, Rows
from controller.reducers.registry import make

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TABLES = arrays.arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=FLOATS)


@given(values=TABLES)
def test_sums_and_products_of_any_floats_are_exact(values: Array) -> None:
    exact = [[Fraction(float(v)) for v in row] for row in values]
    width = values.shape[1]
    assert [Fraction(int(s), 1 << UNIT) for s in column_sums(values)] == [
        sum((row[c] for row in exact), Fraction()) for c in range(width)
    ]
    want = [[sum((row[i] * row[j] for row in exact), Fraction()) for j in range(width)] for i in range(width)]
    assert [[Fraction(int(s), 1 << SQUARE_UNIT) for s in line] for line in gram(values)] == want
    assert [Fraction(int(s), 1 << SQUARE_UNIT) for s in square_sums(values)] == [want[i][i] for i in range(width)]


def test_what_float_addition_loses_is_kept() -> None:
    values = np.array([[1e30], [1.0], [-1e30]], np.float32)
    assert as_floats(column_sums(values), UNIT).tolist() == [1.0]


def test_thousands_of_rows_are_exact_too() -> None:
    values = np.random.default_rng(0).normal(0, 1, (10_000, 3)).astype(np.float32)
    want = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in values[:, :2])
    assert Fraction(int(gram(values)[0, 1]), 1 << SQUARE_UNIT) == want


def test_statistics_are_those_of_the_whole_and_rows_that_are_no_numbers_are_counted_apart() -> None:
    draw = np.random.default_rng(0)
    values, labels = draw.random((100, 5)).astype(np.float32), draw.integers(0, 3, 100)
    values[7, 2] = np.nan
    reducer = make("stats", About(100, (TensorSpec("out", "float32", (5,)),), labels), {"gram": True, "bins": 8})
    state = reducer.empty()
    for first in range(0, 100, 10):
        piece = {"out": values[first : first + 10]}
        state = reducer.add(state, Rows(first, first + 10, "ab"[first % 20 // 10], "1", "x", piece))
    reduced = reducer.finish(state).result()
    kept = np.delete(values, 7, axis=0).astype(np.float64)
    assert reduced.metrics == {"rows": 100, "rows_computed": 100, "rows_finite": 99}
    got = reduced.arrays
    assert np.allclose(got["mean"], kept.mean(axis=0), rtol=1e-12)
    assert np.allclose(got["variance"], kept.var(axis=0), rtol=1e-9)
    assert np.allclose(got["gram"], kept.T @ kept, rtol=1e-12)
    assert np.array_equal(got["minimum"], kept.min(axis=0))
    for column in range(5):
        assert np.array_equal(got["histogram"][column, 1:-1], np.histogram(kept[:, column], 8, (0, 1))[0])
    by_class = [kept[np.delete(labels, 7) == c].sum(axis=0) for c in range(3)]
    assert np.allclose(got["sum_by_class"].T, by_class, rtol=1e-12)
    assert got["rows_by_device"].tolist() == [50, 50]
