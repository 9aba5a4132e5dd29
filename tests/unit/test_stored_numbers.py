"""Numbers as a model stores them are taken only where they can mean one thing."""

from __future__ import annotations

import pytest

from agent.contract import stored_numbers
from agent.contract.tensors import Tensor, TensorSpec

INT8 = TensorSpec("x", "int8", (2,), 0.1, 3)
FINER = TensorSpec("x", "int8", (2,), 0.05, 3)
FLOAT = TensorSpec("x", "float32", (2,))
IDS = TensorSpec("x", "int8", (2,))


def built(*inputs: TensorSpec) -> list[tuple[TensorSpec]]:
    """The inputs of an artifact for each, of a profile of its own."""
    return [(spec,) for spec in inputs]


def sent(dtype: str) -> tuple[Tensor, ...]:
    return (Tensor("x", dtype, (1, 2), bytes(2)),)


@pytest.mark.parametrize(
    ("dtype", "inputs", "only", "says"),
    [
        ("int8", (INT8,), 1, ""),
        ("int8", (INT8, INT8), 1, ""),
        ("int8", (INT8,), 0, "each version has its own scale"),
        ("int8", (INT8, FINER), 1, "different scales"),
        ("int8", (INT8, FLOAT), 1, "different scales"),
        # Here they are numbers like others.
        ("int8", (FLOAT,), 0, ""),
        ("int8", (IDS,), 0, ""),
        ("uint8", (INT8,), 0, ""),
        ("int8", (), 0, ""),
    ],
)
def test_stored_numbers_need_one_scale(dtype: str, inputs: tuple[TensorSpec, ...], only: int, says: str) -> None:
    fault = stored_numbers.fault(sent(dtype), built(*inputs), only)
    assert says in fault
    assert bool(fault) == bool(says)


def test_the_metadata_tells_a_scale_that_all_artifacts_share() -> None:
    assert stored_numbers.common(built(INT8, INT8)) == {"x": INT8}
    assert stored_numbers.common(built(INT8, FINER)) == {}
    assert stored_numbers.common(built(FLOAT)) == {}
    assert stored_numbers.common([]) == {}
