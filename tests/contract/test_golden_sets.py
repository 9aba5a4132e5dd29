"""Golden sets come back as written, never run code, and measure what their names say."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.contract import golden
from agent.contract.golden import AcceptanceSet, GoldenError, ParitySet

rows = st.integers(1, 8)


def _set(n: int) -> ParitySet:
    generator = np.random.default_rng(n)
    image: golden.Array = generator.random((n, 4, 4, 1), dtype=np.float32)
    inputs: dict[str, golden.Array] = {"image": image, "mask": np.ones((n, 2), np.int8)}
    return ParitySet(inputs, {"scores": generator.random((n, 3), dtype=np.float32)})


@given(n=rows)
def test_a_parity_set_comes_back_as_written(n: int) -> None:
    written = _set(n)
    read = golden.read_parity(golden.write_parity(written))
    for before, after in ((written.inputs, read.inputs), (written.outputs, read.outputs)):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert all(before[name].dtype == after[name].dtype for name in before)


@given(labels=arrays(np.int64, rows, elements=st.integers(0, 9)))
def test_an_acceptance_set_comes_back_as_written(labels: golden.Array) -> None:
    inputs = {"image": np.zeros((len(labels), 2), np.float32)}
    read = golden.read_acceptance(golden.write_acceptance(AcceptanceSet(inputs, labels)))
    assert np.array_equal(read.labels, labels)


def test_writing_twice_gives_the_same_bytes_so_that_the_digest_stays() -> None:
    assert golden.write_parity(_set(5)) == golden.write_parity(_set(5))


@pytest.mark.parametrize("garbage", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", bytes(100)])
def test_garbage_is_a_golden_error(garbage: bytes) -> None:
    with pytest.raises(GoldenError):
        golden.read_parity(garbage)


def test_a_pickle_inside_a_golden_set_is_never_loaded() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **{"input:x": np.array([{"a": 1}], dtype=object), "output:y": np.zeros(1)})
    with pytest.raises(GoldenError):
        golden.read_parity(buffer.getvalue())
    with pytest.raises(GoldenError):
        golden.read_parity(pickle.dumps([1]))


def test_a_truncated_set_is_a_golden_error() -> None:
    content = golden.write_parity(_set(4))
    for length in range(0, len(content), 7):
        with pytest.raises(GoldenError):
            golden.read_parity(content[:length])


def test_sets_without_inputs_outputs_or_labels_are_refused_by_name() -> None:
    with pytest.raises(GoldenError, match="'output:NAME'"):
        golden.read_parity(golden.write_acceptance(AcceptanceSet(_set(2).inputs, np.zeros(2, np.int64))))
    with pytest.raises(GoldenError, match="needs an array 'labels'"):
        golden.read_acceptance(golden.write_parity(_set(2)))


@pytest.mark.parametrize(("inputs", "labels"), [(3, 2), (0, 0), (golden.MAX_ROWS + 1, golden.MAX_ROWS + 1)])
def test_uneven_empty_and_oversized_sets_are_refused(inputs: int, labels: int) -> None:
    written = golden.write_acceptance(AcceptanceSet({"x": np.zeros((inputs, 1))}, np.zeros(labels, np.int64)))
    with pytest.raises(GoldenError, match="the same 1 to 512 rows"):
        golden.read_acceptance(written)


def test_an_equal_output_agrees_fully_and_has_no_noise_to_speak_of() -> None:
    outputs = _set(6).outputs
    measured = golden.faithfulness(outputs, outputs)
    assert measured.agreement == 1.0
    assert measured.sqnr_db > 200
    assert measured.cosine == pytest.approx(1.0)
    assert measured.max_error == 0.0


def test_sqnr_is_the_ratio_of_energies_in_decibels() -> None:
    want = {"y": np.full((4, 1), 10.0)}
    got = {"y": np.full((4, 1), 11.0)}
    assert golden.faithfulness(want, got).sqnr_db == pytest.approx(20.0)


def test_cosine_is_blind_to_a_factor_and_the_maximum_error_is_not() -> None:
    want = {"y": np.array([[1.0, 2.0], [3.0, -4.0]]), "z": np.ones((2, 1))}
    doubled = golden.faithfulness(want, {name: 2 * array for name, array in want.items()})
    assert doubled.cosine == pytest.approx(1.0)
    assert doubled.max_error == 4.0
    assert golden.faithfulness(want, {name: -array for name, array in want.items()}).cosine == pytest.approx(-1.0)
    assert golden.faithfulness({"y": np.eye(2)}, {"y": 1 - np.eye(2)}).cosine == 0.0


def test_zeros_are_like_zeros_and_like_nothing_else() -> None:
    zeros, ones = {"y": np.zeros((2, 2))}, {"y": np.ones((2, 2))}
    assert golden.faithfulness(zeros, zeros).cosine == 1.0
    assert golden.faithfulness(ones, zeros).cosine == golden.faithfulness(zeros, ones).cosine == 0.0


def test_agreement_counts_rows_with_the_same_first_class() -> None:
    want = {"y": np.eye(4)}
    got = {"y": np.eye(4)[[0, 1, 2, 0]]}
    assert golden.faithfulness(want, got).agreement == 0.75


def test_an_output_that_is_missing_or_misshapen_is_refused_by_name() -> None:
    want = {"scores": np.zeros((2, 3))}
    with pytest.raises(GoldenError, match=r"'scores'.*no such output"):
        golden.faithfulness(want, {})
    with pytest.raises(GoldenError, match=r"shape \(2, 4\)"):
        golden.faithfulness(want, {"scores": np.zeros((2, 4))})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_as_unfaithful_as_can_be(value: float) -> None:
    want = {"y": np.eye(3)}
    measured = golden.faithfulness(want, {"y": np.full((3, 3), value)})
    assert measured.sqnr_db == float("-inf")
    assert measured.cosine == 0.0
    assert measured.max_error == float("inf")


def test_accuracy_takes_the_first_class_and_a_threshold_where_there_are_two() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert golden.accuracy(np.array([1, 0, 0]), scores) == pytest.approx(2 / 3)
    assert golden.accuracy(np.array([1, 0]), np.array([[0.9], [0.9]])) == 0.5


def test_a_row_with_nan_is_never_correct() -> None:
    scores = np.array([[np.nan, 0.0], [1.0, 0.0]])
    assert golden.correct(np.array([0, 0]), scores).tolist() == [False, True]
