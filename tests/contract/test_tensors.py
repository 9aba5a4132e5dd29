"""A tensor is whole or refused with what it should have been."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import messages, tensors
from agent.contract.tensors import DTYPES, Tensor, TensorError

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from(sorted(DTYPES))


def _whole(dtype: str, shape: tuple[int, ...]) -> Tensor:
    return Tensor("x", dtype, shape, bytes(DTYPES[dtype] * math.prod(shape)))


@given(dtype=dtypes, shape=shapes)
def test_a_whole_tensor_passes_and_one_byte_more_or_less_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = _whole(dtype, shape)
    tensors.check(tensor)
    with pytest.raises(TensorError, match="needs"):
        tensors.check(Tensor("x", dtype, shape, tensor.data + b"\x00"))


@given(dtype=dtypes, shape=shapes)
def test_tensors_survive_the_wire(dtype: str, shape: tuple[int, ...]) -> None:
    pair = (_whole(dtype, shape), Tensor("y", "uint8", (1,), b"\x07"))
    assert messages.decode_tensors(messages.encode_tensors(pair)) == pair


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (Tensor("x", "object", (1,), b"1"), "dtype 'object'; allowed: bool, int8"),
        (Tensor("x", "float32", (), b"1234"), "1 to 8 sizes"),
        (Tensor("x", "int8", (1,) * 9, b"1"), "1 to 8 sizes"),
        (Tensor("x", "int8", (-1, -1), b"1"), "1 to 8 sizes"),
        (Tensor("x", "float32", (2**40, 2**40), b""), "needs"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused_with_the_reason(tensor: Tensor, said: str) -> None:
    with pytest.raises(TensorError, match=said):
        tensors.check(tensor)


def test_rows_are_those_that_all_tensors_have() -> None:
    assert tensors.rows_of((_whole("int8", (3, 2)), _whole("float32", (3,)))) == 3
    with pytest.raises(TensorError, match=r"disagree on the number of rows: \[2, 3\]"):
        tensors.rows_of((_whole("int8", (3,)), _whole("int8", (2,))))
    with pytest.raises(TensorError, match="name at least one input"):
        tensors.rows_of(())
