"""How many rows a shard may have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.contract.messages import MAX_PAYLOAD, Result, Stamper, encode_tensors
from agent.contract.tensors import Tensor, TensorSpec
from controller import job_data


@given(
    stored=st.booleans(),
    row_bytes=st.integers(1, 200_000),
    classes=st.integers(1, 50_000),
    blob=st.integers(1 << 20, 1 << 23),
)
def test_a_shards_rows_fit_a_blob_and_its_result_a_message(
    stored: bool, row_bytes: int, classes: int, blob: int
) -> None:
    rows = job_data.most_rows(row_bytes, [TensorSpec("scores", "int8", (classes,))], blob, stored=stored)
    if rows > 1:
        dtype, size = ("int8", 1) if stored else ("float32", 4)
        output = Tensor("scores", dtype, (rows, classes), bytes(size * rows * classes))
        result = Result(job="job-" + "0" * 16, shard=10**6, attempt=8, outputs=(output,), artifact="1" * 64)
        assert len(Stamper("b" * 32).encode(result)) <= MAX_PAYLOAD
        assert len(encode_tensors((Tensor("x", "uint8", (rows, row_bytes), bytes(rows * row_bytes)),))) <= blob
