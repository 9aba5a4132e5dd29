"""Sums of floats without rounding: as integers, so that no order and no cut into shards changes a bit.

Products are split into slices of few bits whose matrix product is exact in float64: Ozaki, Ogita, Oishi, Rump,
"Error-free transformations of matrix multiplication by using fast routines of matrix multiplication", 2012.
"""

from __future__ import annotations

import numpy as np

from controller.reducers.face import Array

# A float32 is a whole number of 2^-149, a product of two one of 2^-298.
UNIT, SQUARE_UNIT = 149, 298
_ROWS = 4096
# So many values of 2 x 20 bits have a sum below 2^53.
_BITS = 20


def column_sums(values: Array) -> Array:
    """Exact sums of (rows, n) finite float32 over the rows: (n,) Python integers, in units of 2^-149."""
    total = np.zeros(values.shape[1], object)
    for slice_, exponent in _slices(values):
        total += _shifted(slice_.sum(axis=0, dtype=np.int64), exponent + UNIT)
    return total


def gram(values: Array) -> Array:
    """Exact `values.T @ values` of (rows, n) finite float32: (n, n) Python integers, in units of 2^-298."""
    total = np.zeros((values.shape[1], values.shape[1]), object)
    for first in range(0, len(values), _ROWS):
        by_exponent: dict[int, Array] = {}
        slices = _slices(values[first : first + _ROWS])
        for left, left_exponent in slices:
            for right, right_exponent in slices:
                product = (left.T.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
                exponent = left_exponent + right_exponent
                by_exponent[exponent] = by_exponent.get(exponent, 0) + product
        for exponent, product in by_exponent.items():
            total += _shifted(product, exponent + SQUARE_UNIT)
    return total


def square_sums(values: Array) -> Array:
    """The diagonal of `gram`, without the rest."""
    total = np.zeros(values.shape[1], object)
    for first in range(0, len(values), _ROWS):
        slices = _slices(values[first : first + _ROWS])
        for left, left_exponent in slices:
            for right, right_exponent in slices:
                total += _shifted((left * right).sum(axis=0), left_exponent + right_exponent + SQUARE_UNIT)
    return total


def as_floats(sums: Array, unit: int) -> Array:
    """The nearest float64 to each exact sum."""
    flat = [value / (1 << unit) for value in sums.reshape(-1)]
    return np.array(flat, np.float64).reshape(sums.shape)


def _slices(values: Array) -> list[tuple[Array, int]]:
    """`values` as a sum of int64 slices times 2^exponent, each slice below 2^20."""
    rest = values.astype(np.float64)
    slices = []
    _, exponents = np.frexp(rest)
    exponent = int(exponents.max(initial=-UNIT)) - _BITS
    while rest.any():
        slice_ = np.trunc(np.ldexp(rest, -exponent))
        rest = rest - np.ldexp(slice_, exponent)
        if slice_.any():
            slices.append((slice_.astype(np.int64), exponent))
        exponent -= _BITS
    return slices


def _shifted(values: Array, places: int) -> Array:
    """Integers times 2^places as Python integers; where `places` is negative, the lowest bits are zeros anyway."""
    whole = values.astype(object)
    shifted: Array = whole << places if places >= 0 else whole >> -places
    return shifted
