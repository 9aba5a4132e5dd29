"""The laws of every reducer: no order, no grouping and no cut changes a bit; and what each of them finds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.tensors import TensorSpec
from controller.errors import UserError
from controller.reducers.calibration import Confidences, fit_temperature, held_out
from controller.reducers.classes import log_probabilities, sharpened
from controller.reducers.face import About, Array, Reducer, Rows
from controller.reducers.registry import make

CLASSES = 4
SPEC = TensorSpec("scores", "float32", (CLASSES,))


def about(labels: Array | None = None, rows: int = 0) -> About:
    return About(rows or len(labels if labels is not None else []), (SPEC,), labels)


def shard(first: int, scores: Array, device: str = "a", replica: int = 0) -> Rows:
    outputs = {"scores": np.asarray(scores, np.float32)}
    return Rows(first, first + len(scores), device, "1" * 64, "ai-edge-litert", outputs, 0.5, replica)


def finished(reducer: Reducer[Any], state: Any, shards: list[Rows]) -> tuple[dict[str, float], dict[str, bytes]]:
    """Everything that a reducer gives, to the last bit."""
    done = reducer.finish(state)
    pieces: dict[str, bytes] = {}
    for first, last in sorted({(s.first, s.last) for s in shards}):
        here = sorted((s for s in shards if s.first == first), key=lambda s: s.replica)
        for name, column in done.columns(first, last, here).items():
            assert len(column) == last - first
            pieces[name] = pieces.get(name, b"") + column.tobytes()
    reduced = done.result()
    return dict(reduced.metrics), pieces | {name: array.tobytes() for name, array in reduced.arrays.items()}


def folded(reducer: Reducer[Any], shards: list[Rows]) -> Any:
    state = reducer.empty()
    for each in shards:
        state = reducer.add(state, each)
    return state


def made(name: str, labels: Array, **settings: object) -> Reducer[Any]:
    return make(name, about(labels), settings)


KINDS: list[tuple[str, Mapping[str, Any]]] = [
    ("score", {"top_k": 3}),
    ("score", {"refine": "temperature", "held_out": 0.5}),
    ("vote", {"replicas": 3}),
    ("vote", {"replicas": 3, "refine": "reliability", "held_out": 0.4}),
    ("stats", {}),
    ("stats", {"gram": True}),
    ("topk", {"k": 5}),
    ("topk", {"k": 5, "by": "2"}),
]


@pytest.mark.parametrize(("name", "settings"), KINDS)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 7))
def test_no_order_and_no_grouping_of_shards_changes_a_bit(
    name: str, settings: Mapping[str, Any], seed: int, size: int
) -> None:
    draw = np.random.default_rng(seed)
    rows = int(draw.integers(1, 30))
    labels = draw.integers(-1, CLASSES, rows)
    labels[0] = 0
    shards = [
        shard(first, draw.normal(0, 10.0 ** draw.integers(-6, 6), (min(size, rows - first), CLASSES)), device, replica)
        for first in range(0, rows, size)
        for replica, device in enumerate(draw.permutation(["a", "b", "c", "d"])[: 3 if name == "vote" else 1])
    ]
    reducer = made(name, labels, **settings)
    want = finished(reducer, folded(reducer, shards), shards)
    shuffled = random.Random(seed).sample(shards, len(shards))
    assert finished(reducer, folded(reducer, shuffled), shards) == want
    cut = seed % (len(shards) + 1)
    parts = folded(reducer, shuffled[:cut]), folded(reducer, shuffled[cut:])
    assert finished(reducer, reducer.merge(*parts), shards) == want
    parts = folded(reducer, shuffled[:cut]), folded(reducer, shuffled[cut:])
    assert finished(reducer, reducer.merge(parts[1], reducer.merge(parts[0], reducer.empty())), shards) == want


def test_labels_give_accuracy_and_a_confusion_matrix_and_missing_rows_show_as_missing() -> None:
    labels = np.array([0, 1, 2, 3, 0, -1])
    reducer = made("score", labels)
    given = [shard(0, np.eye(4)[[0, 1]], "b"), shard(4, np.eye(4)[[3, 0]], "a")]
    done = reducer.finish(folded(reducer, given))
    missing, there = done.columns(2, 4, []), done.columns(4, 6, given[1:])
    assert missing["label"].tolist() == [-1, -1]
    assert missing["device"].tolist() == [-1, -1]
    assert np.isnan(missing["output:scores"]).all()
    assert [done.names["device"][n] for n in there["device"]] == ["a", "a"]
    assert there["truth"].tolist() == [0, -1]
    reduced = done.result()
    assert reduced.metrics["rows_computed"] == 4
    assert reduced.metrics["accuracy"] == pytest.approx(2 / 3)
    assert reduced.arrays["confusion"].tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0] * 4, [0] * 4]


def test_a_model_without_classes_still_gives_its_outputs() -> None:
    spec = TensorSpec("angle", "float32", (1,))
    reducer = make("score", About(2, (spec,), np.array([7, 8])), {})
    rows = Rows(0, 2, "a", "1" * 64, "x", {"angle": np.array([[1.0], [2.0]], np.float32)})
    columns = reducer.finish(folded(reducer, [rows])).columns(0, 2, [rows])
    assert "label" not in columns
    assert columns["output:angle"].tolist() == [[1.0], [2.0]]


def overconfident(rows: int, seed: int = 3, heat: float = 3.0) -> tuple[Array, Array]:
    """Logits whose honest form is `heat` times flatter, and labels drawn from the honest one."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(0, 1.5, (rows, CLASSES))
    chances = sharpened(honest, 1.0)
    labels = (chances.cumsum(axis=1) < draw.random((rows, 1))).sum(axis=1).clip(0, CLASSES - 1)
    return (honest * heat).astype(np.float32), labels


def test_a_temperature_fitted_on_held_out_rows_mends_the_confidence_on_the_others() -> None:
    logits, labels = overconfident(6000)
    reducer = made("score", labels, refine="temperature", held_out=0.3)
    shards = [shard(first, logits[first : first + 500]) for first in range(0, 6000, 500)]
    done = reducer.finish(folded(reducer, shards))
    columns = [done.columns(s.first, s.last, [s]) for s in shards]
    metrics = done.result().metrics
    assert metrics["temperature"] == pytest.approx(3.0, rel=0.1)
    assert metrics["held_out_rows"] == 1800
    assert metrics["ece_before"] > 0.15
    assert metrics["ece_after"] < 0.03
    assert metrics["accuracy_before"] == metrics["accuracy_after"]
    stated = np.concatenate([c["probability"] for c in columns])
    right = np.concatenate([c["label"] == c["truth"] for c in columns])
    assert stated.mean() == pytest.approx(right.mean(), abs=0.03)


def test_the_error_of_calibration_is_the_textbooks() -> None:
    draw = np.random.default_rng(0)
    stated, right = draw.random(1000), draw.random(1000) < 0.6
    kept = Confidences()
    kept.add(stated, right)
    bins = np.minimum((stated * 15).astype(int), 14)
    want = sum(
        abs(right[bins == b].mean() - stated[bins == b].mean()) * (bins == b).mean()
        for b in range(15)
        if (bins == b).any()
    )
    assert kept.ece == pytest.approx(want, abs=1e-9)
    assert kept.accuracy == right.mean()


def test_a_temperature_without_rows_changes_nothing() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=60), share=st.floats(0.01, 0.99))
def test_rows_are_held_out_by_their_number_alone(labels: list[int], share: float) -> None:
    array = np.array(labels)
    held = held_out(array, share, 10)
    assert held.sum() == min(round(share * (array >= 0).sum()), 10)
    assert (array[held] >= 0).all()


def test_softmax_and_logits_are_told_apart_row_by_row() -> None:
    logits = np.array([[2.0, 1.0, 0.0, -1.0]])
    chances = np.exp(logits) / np.exp(logits).sum()
    for scores in (logits, chances):
        assert np.allclose(np.exp(log_probabilities(scores, SPEC, "auto")), chances)
    stored = TensorSpec("scores", "int8", (4,), 1 / 256, -128)
    assert np.allclose(np.exp(log_probabilities(np.array([[0.5, 0.25, 0.25, 0.0]]), stored, "auto")).sum(), 1)


def ballots(answers: Mapping[str, Array], size: int = 50) -> list[Rows]:
    rows = len(next(iter(answers.values())))
    return [
        shard(first, np.eye(CLASSES)[labels[first : first + size]] * 0.6 + 0.1, device, replica)
        for first in range(0, rows, size)
        for replica, (device, labels) in enumerate(answers.items())
    ]


def test_the_majority_answers_and_a_bad_device_is_found() -> None:
    draw = np.random.default_rng(1)
    truth = draw.integers(0, CLASSES, 500)
    bad = np.where(draw.random(500) < 0.3, (truth + 1) % CLASSES, truth)
    shards = ballots({"good": truth, "fine": truth, "bad": bad})
    reducer = make("vote", about(rows=500), {"replicas": 3})
    done = reducer.finish(folded(reducer, shards))
    labels = np.concatenate([done.columns(first, first + 50, [])["label"] for first in range(0, 500, 50)])
    assert np.array_equal(labels, truth)
    metrics, arrays = done.result().metrics, done.result().arrays
    wrong = int((bad != truth).sum())
    assert metrics["rows_contested"] == wrong
    assert metrics["disagreement:bad"] == wrong / 500
    assert metrics["disagreement:good"] == metrics["disagreement:fine"] == 0
    assert dict(zip(arrays["devices"], arrays["other_bits_by_device"], strict=True)) == {
        "bad": wrong,
        "good": 0,
        "fine": 0,
    }


def test_one_wrong_bit_that_changes_no_class_is_found() -> None:
    scores = np.full((10, CLASSES), 0.1, np.float32)
    scores[:, 1] = 0.7
    other = scores.copy()
    other[4, 1] = np.nextafter(other[4, 1], np.float32(1))
    shards = [shard(0, scores, "a", 0), shard(0, scores, "b", 1), shard(0, other, "c", 2)]
    reducer = make("vote", about(rows=10), {})
    reduced = reducer.finish(folded(reducer, shards)).result()
    assert reduced.metrics["rows_contested"] == 0
    assert reduced.arrays["other_bits_by_device"].tolist() == [0, 0, 1]


def test_weighing_votes_by_measured_reliability_beats_the_plain_majority_and_says_by_how_much() -> None:
    draw = np.random.default_rng(5)
    truth = draw.integers(0, CLASSES, 4000)

    def device(right: float) -> Array:
        return np.where(draw.random(4000) < right, truth, (truth + draw.integers(1, CLASSES, 4000)) % CLASSES)

    shards = ballots({"good": device(0.95), "poor": device(0.4), "weak": device(0.4)}, 500)
    reducer = made("vote", truth, replicas=3, refine="reliability")
    done = reducer.finish(folded(reducer, shards))
    for first in range(0, 4000, 500):
        done.columns(first, first + 500, [])
    metrics = done.result().metrics
    assert metrics["reliability:good"] == pytest.approx(0.95, abs=0.03)
    assert metrics["reliability:poor"] == pytest.approx(0.4, abs=0.05)
    assert metrics["accuracy_after"] > metrics["accuracy_before"] + 0.1
    assert metrics["ece_after"] < 0.03 < metrics["ece_before"]


def test_one_device_has_one_vote_however_often_it_computed() -> None:
    ones, twos = np.full(5, 1), np.full(5, 2)
    shards = [*ballots({"a": ones, "b": twos}), shard(0, np.eye(CLASSES)[ones] * 0.6 + 0.1, "a", 2)]
    reducer = make("vote", about(rows=5), {})
    done = reducer.finish(folded(reducer, shards))
    assert done.columns(0, 5, [])["votes"].tolist() == [2] * 5


@given(seed=st.integers(0, 10**6), k=st.integers(1, 8))
def test_topk_is_the_head_of_the_sorted_whole(seed: int, k: int) -> None:
    chances = np.random.default_rng(seed).dirichlet(np.ones(CLASSES), 20).astype(np.float32)
    reducer = make("topk", about(rows=20), {"k": k, "by": "1"})
    arrays = reducer.finish(folded(reducer, [shard(f, chances[f : f + 3]) for f in range(0, 20, 3)])).result().arrays
    exact = np.exp(log_probabilities(chances, SPEC, "auto"))[:, 1]
    assert arrays["row"].tolist() == sorted(range(20), key=lambda row: (-exact[row], row))[:k]


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("sum", {}, "no reducer is called 'sum'; there are score, stats, topk, vote"),
        ("score", {"topk": 3}, "does not take these settings: .*topk"),
        ("score", {"top_k": 0}, "top_k"),
        ("score", {"output": "other"}, "no output 'other'"),
        ("score", {"refine": "temperature"}, "the input has none"),
        ("vote", {"replicas": 1}, "replicas"),
        ("topk", {"by": "9"}, "nor a class from 0 to 3"),
        ("stats", {"low": 1, "high": 0}, "is not below its high"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_computed(
    name: str, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        make(name, about(rows=5), settings)


def test_labels_that_are_no_classes_of_the_model_are_refused() -> None:
    with pytest.raises(UserError, match="labels go up to 9, and the model's classes from 0 to 3"):
        made("score", np.array([9]))
