"""Scores as labels, best first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp

from controller import classes


@given(scores=hnp.arrays(np.float32, (3, 5), elements={"allow_nan": False, "allow_infinity": False}))
def test_the_best_come_first_and_each_class_once(scores: np.ndarray) -> None:
    for row, told in zip(scores, classes.told({"scores": scores}, list("abcde"), 5)["predictions"], strict=True):
        ranked = [entry.score for entry in told["top"]]
        assert ranked == sorted(row.tolist(), reverse=True)
        assert sorted(entry.label for entry in told["top"]) == list("abcde")
        assert (told["label"], told["score"]) == (told["top"][0].label, told["top"][0].score)


def test_classes_without_labels_are_numbers_and_top_is_a_limit() -> None:
    [told] = classes.told({"scores": np.array([[0.1, 0.7, 0.2]], np.float32)}, ["only"], 2)["predictions"]
    assert [(entry.number, entry.label) for entry in told["top"]] == [(1, "1"), (2, "2")]


def test_scores_that_are_no_numbers_name_no_class() -> None:
    told = classes.told({"scores": np.array([[np.nan, 1.0]], np.float32)}, [], 2)
    assert told == {"predictions": [{"label": None, "score": None, "top": []}]}


def test_a_model_without_classes_gives_its_numbers() -> None:
    told = classes.told({"y": np.array([[1.5], [np.nan]], np.float32)}, [], 2)
    assert classes.encoded(told) == b'{"outputs":{"y":[[1.5],[null]]}}'
