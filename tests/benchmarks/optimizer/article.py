"""The article's example: 2 features, 1,000 samples, about a million parameters that become about 100,000.

Measured here, before and after structured pruning, on the processor and on a GPU where TensorFlow finds one. Of the
article's own numbers the two of parameters are known, and stand beside ours.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from agent.contract.golden import accuracy
from optimizer.prune.run import Report, Rows, prune
from optimizer.prune.settings import Pruning
from optimizer.tuning import Tuning
from tests.benchmarks.results import Figure

ROWS, WIDTH, BATCH = 1000, 996, 32
THEIRS = "the article's: about 1,000,000 -> 100,000"
Splits = dict[str, Rows]


class Trained(NamedTuple):
    """`epoch_s`: median; `total_s`: all epochs."""

    epoch_s: float
    total_s: float


class Row(NamedTuple):
    """The example on one device."""

    report: Report
    large: Trained
    small: Trained
    pruning_s: float
    accuracies: tuple[float, float]


def figures(folder: Path, quick: bool) -> list[Figure]:
    row = measured("/CPU:0", quick)
    found = [*_of_sizes(row), *_of_times(row, "")]
    if not tf.config.list_physical_devices("GPU"):
        return [*found, Figure("article_gpus", 0, note="no GPU found")]
    return [*found, Figure("article_gpus", 1), *_of_times(measured("/GPU:0", quick), "_gpu")]


def measured(device: str, quick: bool) -> Row:
    """Train the large model, prune it, and train both sizes alike for the time of an epoch."""
    keras.utils.set_random_seed(0)
    epochs = 3 if quick else 30
    splits = moons()
    with tf.device(device):
        model = network()
        large = train(model, splits, epochs)
        started = time.monotonic()
        student, report = prune(model, splits["train"], splits["validation"], _settings(quick), lambda done, said: None)
        pruning_s = time.monotonic() - started
        scores = tuple(_accuracy(one, splits["test"]) for one in (model, student))
        small = train(keras.models.clone_model(student), splits, epochs)
    return Row(report, large, small, pruning_s, (scores[0], scores[1]))


def network() -> Any:
    """2 -> 996 -> 996 -> 1: 996,997 parameters."""
    point = keras.Input((2,), name="point")
    flow = keras.layers.Dense(WIDTH, "relu", name="first")(point)
    flow = keras.layers.Dense(WIDTH, "relu", name="second")(flow)
    return keras.Model(point, keras.layers.Dense(1, "sigmoid", name="side")(flow))


def moons() -> Splits:
    """Two half circles that reach into each other, with noise: 600 rows to learn from, 200 and 200 to judge by."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, ROWS)
    angle = random.uniform(0, math.pi, ROWS)
    turned = np.where(labels == 0, 1.0, -1.0)
    points = np.stack([turned * np.cos(angle) + labels, turned * np.sin(angle) + labels * 0.5], 1)
    points = (points + random.normal(0, 0.2, points.shape)).astype(np.float32)
    parts = dict(zip(("train", "validation", "test"), np.split(np.arange(ROWS), [600, 800]), strict=True))
    return {split: Rows((points[rows],), labels[rows]) for split, rows in parts.items()}


def train(model: Any, splits: Splits, epochs: int) -> Trained:
    """The first epoch, in which TensorFlow builds its graph, counts in the total and not in the median."""
    model.compile("adam", "binary_crossentropy")
    rows, marks = splits["train"], [time.monotonic()]
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: marks.append(time.monotonic()))
    model.fit(rows.inputs[0], rows.labels, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[told])
    taken = [after - before for before, after in pairwise(marks)]
    return Trained(statistics.median(taken[1:]), marks[-1] - marks[0])


def _settings(quick: bool) -> Pruning:
    epochs = 2 if quick else 20
    return Pruning(
        budget=0.1,
        rounds=1 if quick else 2,
        between=Tuning(epochs=1, batch=BATCH, temperature=2.0, dropout=0.0),
        after=Tuning(epochs=epochs, batch=BATCH, rate=3e-3, temperature=2.0, dropout=0.0),
    )


def _accuracy(model: Any, rows: Rows) -> float:
    return accuracy(np.asarray(rows.labels), model.predict(rows.inputs[0], verbose=0))


def _of_sizes(row: Row) -> list[Figure]:
    before, after = row.report.before, row.report.after
    large, small = row.accuracies
    return [
        _ratio("article_parameter_ratio", before.parameters, after.parameters, lambda n: f"{n:,.0f}", f"; {THEIRS}"),
        _ratio("article_mac_ratio", before.macs, after.macs, lambda n: f"{n:,.0f}"),
        Figure("article_accuracy_before", large, note="200 rows of test"),
        Figure("article_accuracy_after", small, note="the same rows"),
    ]


def _of_times(row: Row, device: str) -> list[Figure]:
    """The total until there is a small model: training of the large one, pruning and fine-tuning included."""
    ours = row.large.total_s + row.pruning_s
    return [
        _ratio(
            f"article_epoch_time_ratio{device}", row.large.epoch_s, row.small.epoch_s, lambda s: f"{s * 1000:.0f} ms"
        ),
        Figure(
            f"article_total_time_ratio{device}",
            ours / row.large.total_s,
            note=f"{row.large.total_s:.1f} s of training alone, {ours:.1f} s with pruning and fine-tuning: it costs",
        ),
    ]


def _ratio(key: str, before: float, after: float, shown: Callable[[float], str], more: str = "") -> Figure:
    return Figure(key, before / after, note=f"{shown(before)} -> {shown(after)}{more}")
