"""Scores of classes: which output holds them, and what probability they mean."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agent.contract.tensors import TensorSpec
from controller.errors import UserError
from controller.reducers.face import About, Array

Meaning = Literal["auto", "probabilities", "logits"]
# Softmax of an int8 .tflite is stored so, by TFLite's specification.
_SOFTMAX = (1 / 256, -128)
# Below what int8 can tell from 0.
_LEAST = 1 / 1024
_MOST_CLASSES = 4096


def scores_output(about: About, name: str | None = None) -> TensorSpec | None:
    """The output with a score for each of several classes; None if the model has none. Raises UserError if it has no
    output `name`, or labels that are no classes of it."""
    fitting = [spec for spec in about.outputs if len(spec.shape) == 1 and spec.shape[0] > 1]
    if name is not None:
        fitting = [spec for spec in fitting if spec.name == name]
        if not fitting:
            told = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in about.outputs)
            raise UserError(f"no output {name!r} has scores of classes; there are {told}")
    if not fitting:
        return None
    spec = fitting[0]
    most = -1 if about.labels is None else int(about.labels.max())
    if most >= spec.shape[0]:
        raise UserError(
            f"the labels go up to {most}, and the model's classes from 0 to {spec.shape[0] - 1}", "correct the labels"
        )
    return spec


def needed(about: About, name: str | None, reducer: str) -> TensorSpec:
    """As `scores_output`, for a reducer that can do nothing without."""
    spec = scores_output(about, name)
    if spec is None:
        raise UserError(f"{reducer} needs an output with a score for each class, which this model has not", "use stats")
    if spec.shape[0] > _MOST_CLASSES:
        raise UserError(f"{reducer} takes at most {_MOST_CLASSES} classes, the model has {spec.shape[0]}", "use stats")
    return spec


def log_probabilities(scores: Array, spec: TensorSpec, meaning: Meaning) -> Array:
    """(rows, classes) scores as float64 logarithms of probabilities; each row by itself.

    `auto`: probabilities where the model's output is stored as softmax is, or where all are >= 0 and their sum is 1.
    """
    values = np.nan_to_num(scores.astype(np.float64), nan=-1e30, posinf=1e30, neginf=-1e30)
    peak = values.max(axis=1, keepdims=True)
    logits: Array = values - peak - np.log(np.exp(values - peak).sum(axis=1, keepdims=True))
    if meaning == "logits":
        return logits
    positive = np.maximum(values, _LEAST / values.shape[1])
    known: Array = np.log(positive / positive.sum(axis=1, keepdims=True))
    if meaning == "probabilities" or (spec.scale, spec.zero_point) == _SOFTMAX:
        return known
    sums = (values.min(axis=1) >= 0) & (np.abs(values.sum(axis=1) - 1) < 1e-3)
    either: Array = np.where(sums[:, np.newaxis], known, logits)
    return either


def sharpened(logs: Array, temperature: float) -> Array:
    """Probabilities (rows, classes) float64 at a temperature; 1 leaves them as they are."""
    scaled = logs / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    probabilities: Array = np.exp(scaled)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities
