"""Answers of a model in words: `7 (0.98)`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.contract.golden import Array
from agent.contract.predictions import label_of
from controller.classes import scores_of
from controller.client.oip import Answer
from controller.replies import Version

_SHOWN = 8


def describe(answer: Answer, labels: Sequence[str]) -> list[str]:
    """One line per row: the best class with its score where the model classifies, else the numbers."""
    scores = scores_of(answer.outputs)
    if scores is not None:
        return [_best(row, labels) for row in scores]
    rows = len(next(iter(answer.outputs.values()), ()))
    return [", ".join(f"{name} {_numbers(array[i])}" for name, array in answer.outputs.items()) for i in range(rows)]


def object_of(answer: Answer, version: Version, file: Path | None) -> dict[str, object]:
    """An answer as a JSON object, with every output."""
    about: dict[str, object] = {"file": str(file)} if file else {}
    scores = scores_of(answer.outputs)
    if scores is not None:
        best = scores.argmax(axis=1)
        fits = version.version == answer.version
        about["labels"] = [label_of(int(i), version.labels if fits else ()) for i in best]
        about["scores"] = [float(row[i]) for row, i in zip(scores, best, strict=True)]
    told = {"version": answer.version, "artifact": answer.artifact, "device": answer.device, "runtime": answer.runtime}
    return {**about, **told, "request": answer.id, "outputs": {n: a.tolist() for n, a in answer.outputs.items()}}


def _best(row: Array, labels: Sequence[str]) -> str:
    if not np.isfinite(row).all():
        return "no answer: the model gave numbers that are none"
    index = int(row.argmax())
    # int8 steps of 1/256 keep a softmax's sum near one; other scores are not called a share.
    is_share = row.min() >= 0 and abs(float(row.sum()) - 1) < 0.1
    return (
        f"{label_of(index, labels)} ({row[index]:.2f})"
        if is_share
        else f"{label_of(index, labels)} (score {row[index]:.3g})"
    )


def _numbers(array: Array) -> str:
    flat = array.ravel()
    shown = " ".join(f"{x:.4g}" for x in flat[:_SHOWN])
    return f"[{shown}{' ...' if flat.size > _SHOWN else ''}]" + (
        f" of shape {list(array.shape)}" if array.ndim > 1 else ""
    )
