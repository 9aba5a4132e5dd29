"""A job's input, its shards on the wire, and what the reducer makes of the results."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.messages import MAX_PAYLOAD, Result, Stamper
from agent.contract.tensors import Tensor, TensorSpec
from controller import job_data
from controller.errors import UserError
from controller.job_data import JobInput, ShardResult

SPEC = TensorSpec("image", "int8", (2, 2), 0.1, 0)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path.with_suffix(".npz") if path.suffix != ".npz" else path


def make_input(rows: int, labels: bool = True) -> JobInput:
    values = np.arange(rows * 4, dtype=np.float32).reshape(rows, 2, 2)
    return JobInput({"image": values}, np.arange(rows) % 3 if labels else None, None, rows)


def computed(data: JobInput, first: int, last: int, device: str = "a") -> ShardResult:
    """A result whose top class is the row number modulo 3."""
    scores = np.eye(3, dtype=np.float32)[np.arange(first, last) % 3]
    output = Tensor("scores", "float32", scores.shape, scores.tobytes())
    return ShardResult(first, last, device, "1" * 64, "ai-edge-litert", (output,))


def test_named_arrays_x_and_a_plain_array_are_understood(tmp_path: Path) -> None:
    images = np.ones((3, 2, 2))
    np.save(tmp_path / "plain.npy", images)
    for path in (
        npz(tmp_path / "named.npz", image=images, labels=np.zeros(3)),
        npz(tmp_path / "x.npz", x=images),
        tmp_path / "plain.npy",
    ):
        data = job_data.load_input(path, [SPEC])
        assert data.rows == 3
        assert data.inputs["image"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"other": np.ones((3, 2, 2))}, "no array called image; it has other"),
        ({"image": np.ones((3, 2, 3))}, r"needs shape \['rows', 2, 2\], the file has \[3, 2, 3\]"),
        ({"image": np.ones((3, 2, 2)), "labels": np.ones(2)}, "same number of rows"),
        ({"image": np.ones((3, 2, 2)), "labels": np.ones((3, 2))}, "one value per row"),
        ({"image": np.ones((0, 2, 2))}, "at least one"),
        ({"image": np.full((3, 2, 2), "a")}, "needs numbers"),
        ({"image": np.full((3, 2, 2), None, dtype=object)}, "neither .npy nor .npz"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_is_sent(
    tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        job_data.load_input(npz(tmp_path / "bad.npz", **arrays), [SPEC])


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"neither \.npy nor \.npz"):
        job_data.load_input(path, [SPEC])


@given(row_bytes=st.integers(1, 200_000), classes=st.integers(1, 50_000))
def test_a_shard_and_its_result_fit_a_message(row_bytes: int, classes: int) -> None:
    rows = job_data.most_rows(row_bytes, [TensorSpec("scores", "int8", (classes,))])
    if rows > 1:
        output = Tensor("scores", "float32", (rows, classes), bytes(4 * rows * classes))
        result = Result(job="job-" + "0" * 16, shard=10**6, attempt=8, outputs=(output,), artifact="1" * 64)
        assert len(Stamper("b" * 32).encode(result)) <= MAX_PAYLOAD
        assert rows * row_bytes <= MAX_PAYLOAD


def test_the_tensors_of_all_shards_are_the_input() -> None:
    data = make_input(7)
    pieces = [job_data.tensors_of(data, first, min(first + 3, 7))[0] for first in range(0, 7, 3)]
    joined = np.concatenate([np.frombuffer(t.data, t.dtype).reshape(t.shape) for t in pieces])
    assert np.array_equal(joined, data.inputs["image"])


@given(rows=st.integers(1, 50), size=st.integers(1, 10), seed=st.integers(0, 9))
def test_the_order_of_results_does_not_matter(rows: int, size: int, seed: int) -> None:
    data = make_input(rows)
    results = [computed(data, first, min(first + size, rows)) for first in range(0, rows, size)]
    shuffled = random.Random(seed).sample(results, len(results))
    content, metrics = job_data.reduce_scores(shuffled, data)
    table = np.load(io.BytesIO(content))
    assert np.array_equal(table["label"], np.arange(rows) % 3)
    assert np.array_equal(table["id"], np.arange(rows))
    assert metrics == {"rows": rows, "rows_computed": rows, "accuracy": 1.0}


def test_every_row_names_who_computed_it_and_missing_rows_show_as_missing() -> None:
    data = make_input(6)
    content, metrics = job_data.reduce_scores([computed(data, 0, 2, "a"), computed(data, 4, 6, "b")], data)
    table = np.load(io.BytesIO(content))
    assert list(table["device"]) == [0, 0, -1, -1, 1, 1]
    assert list(table["devices"]) == ["a", "b"]
    assert list(table["label"][2:4]) == [-1, -1]
    assert metrics["rows_computed"] == 4
