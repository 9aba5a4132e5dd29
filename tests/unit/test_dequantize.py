"""Stored numbers and the real ones that they stand for: the same bits on whichever side of the wire."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import runtime
from agent.answering import to_tensor
from agent.contract.dequantize import reals
from agent.contract.tensors import Tensor, TensorSpec
from tests.builders import RUNTIMES, dscnn, random_inputs

SPEC = TensorSpec("scores", "int8", (3,), 0.125, -3)


@given(st.lists(st.integers(-128, 127), min_size=3, max_size=30).filter(lambda numbers: len(numbers) % 3 == 0))
def test_what_comes_stored_becomes_the_numbers_that_it_stands_for(numbers: list[int]) -> None:
    stored = np.array(numbers, np.int8).reshape(-1, 3)
    (found,) = reals([to_tensor("scores", stored)], [SPEC])
    assert (found.name, found.dtype, found.shape) == ("scores", "float32", stored.shape)
    assert np.frombuffer(found.data, np.float32).tolist() == [(number + 3) * 0.125 for number in numbers]


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("scores", "float32", (1, 3), bytes(12)),  # Real already, as older devices answer.
        Tensor("other", "int8", (1, 3), bytes(3)),
    ],
)
def test_what_is_real_or_unknown_stays_as_it_is(tensor: Tensor) -> None:
    assert reals([tensor], [SPEC]) == (tensor,)


def test_a_worker_and_its_controller_come_to_the_same_bits() -> None:
    model = runtime.load(dscnn(), runtimes=RUNTIMES)
    inputs = random_inputs(model, 5)
    there = runtime.predict(model, inputs)
    sent = [to_tensor(name, array) for name, array in runtime.compute(model, inputs).items()]
    assert {tensor.dtype for tensor in sent} == {"int8"}
    here = reals(sent, model.outputs)
    assert [tensor.data for tensor in here] == [there[tensor.name].tobytes() for tensor in here]
