"""Calibration of a job's result: a classifier of real handwritten digits that is surer than it should be.

A linear model fitted without regularization to 500 of scikit-learn's digits, as int8; the job computes the others.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tests.benchmarks.fleet import Fleet
from tests.benchmarks.results import Figure
from tests.builders import dense

MODEL, TRAINED = "digits", 500
HELD_OUT = 0.3


def figures(folder: Path, _quick: bool) -> list[Figure]:
    digits = load_digits()
    x = (digits.data / 2 - 4).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = x[order], digits.target[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It need not converge: it is to be too sure.
        fitted = LogisticRegression(C=1e4, max_iter=500).fit(x[:TRAINED], labels[:TRAINED])
    with Fleet(folder) as fleet:
        fleet.add_agent("pi-1")
        fleet.roll_out(MODEL, fleet.push(MODEL, dense(fitted.coef_, fitted.intercept_)))
        path = folder / "rows.npz"
        np.savez(path, x=x[TRAINED:], labels=labels[TRAINED:])
        digest = fleet.client.put_file(path).digest
        settings = {"refine": "temperature", "held_out": HELD_OUT, "scores": "logits"}
        job = fleet.compute(MODEL, digest, 60, settings=settings)
    assert job.metrics is not None
    told = job.metrics
    note = f"temperature {told['temperature']:.2f}, fitted to {HELD_OUT:.0%} of {job.rows} rows, judged on the others"
    better = told["ece_after"] < told["ece_before"]
    return [
        Figure("ece_before", told["ece_before"], note="expected calibration error"),
        Figure("ece_after", told["ece_after"], "", "< ece_before", better, note),
        Figure("accuracy_before", told["accuracy_before"]),
        Figure("accuracy_after", told["accuracy_after"]),
    ]
