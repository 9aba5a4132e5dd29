"""Decides whether an artifact may be released. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from firmware_profiles.profile import Gate

_Z_95 = 1.6448536269514722
"""One-sided 95 % point of the normal distribution."""


class Paired(NamedTuple):
    """The same labelled rows through both models."""

    rows: int
    float_only: int
    """Rows that only the float model gets right."""
    artifact_only: int
    """Rows that only the artifact gets right."""

    @property
    def loss(self) -> float:
        """Point estimate of the accuracy loss, as a share of rows; negative where the artifact is better."""
        return (self.float_only - self.artifact_only) / self.rows


class Verdict(NamedTuple):
    passed: bool
    reasons: tuple[str, ...]
    """One line per criterion, kept or not."""
    loss: float | None
    bound_95: float | None


class Measured(NamedTuple):
    """How faithful an artifact is to a float model on a set of rows."""

    where: str
    """The rows and, if it is not the model that was converted, the float model, in words."""
    agreement: float
    sqnr_db: float
    cosine: float = 1.0
    max_error: float = 0.0
    judged: tuple[str, ...] = ("agreement", "sqnr_db")
    """Values of the gate that apply here; the rest is shown. Against the original of a pruned model SQNR says little:
    other weights give other scores for the same class."""


def judge(gate: Gate, paired: Paired | None, parities: Sequence[Measured]) -> Verdict:
    """Accuracy within the margin, and faithful everywhere. Without labels (`paired` None) only faithful.

    The point estimate of the loss decides; with `gate.strict` its one-sided 95 % bound does. Where no parity is judged
    and there are no labels either, nothing was proven: it fails.
    """
    lines: list[tuple[bool, str]] = []
    loss = bound = None
    if paired is None:
        lines.append(
            (any(parity.judged for parity in parities), "no classes and labels to judge by: parity alone decides")
        )
    else:
        loss, bound = paired.loss, loss_bound(paired)
        lines.append(_accuracy(gate, paired, loss, bound))
    for parity in parities:
        lines += _parity(gate, parity)
    reasons = tuple(f"{'ok' if good else 'no'}: {text}" for good, text in lines)
    return Verdict(all(good for good, _ in lines), reasons, loss, bound)


def loss_bound(paired: Paired) -> float:
    """One-sided 95 % upper confidence bound of the accuracy loss from paired counts.

    Score interval of T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998) 891-908: the largest loss that a score test at the
    one-sided 5 % level does not reject. Useful also where few rows differ; where none do, it is z^2 / (n + z^2).
    """
    low, high = paired.loss, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(paired, middle) > -_Z_95 else (low, middle)
    return high


def _score(paired: Paired, loss: float) -> float:
    """Tango's statistic of the hypothesis that the true loss is `loss`."""
    n, b, c = paired.rows, paired.float_only, paired.artifact_only
    half = -b - c + (2 * n - b + c) * loss
    root = math.sqrt(max(0.0, half * half + 8 * n * c * loss * (1 - loss)))
    share = (root - half) / (4 * n)
    variance = n * (2 * share + loss * (1 - loss))
    difference = b - c - n * loss
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _accuracy(gate: Gate, paired: Paired, loss: float, bound: float) -> tuple[bool, str]:
    judged, what = (bound, "95 % bound of the loss") if gate.strict else (loss, "loss")
    text = (
        f"accuracy: {what} {100 * judged:.2f} points, margin {100 * gate.accuracy_loss:.2f} "
        f"({paired.float_only} rows lost, {paired.artifact_only} won of {paired.rows}; 95 % bound {100 * bound:.2f})"
    )
    return judged <= gate.accuracy_loss + 1e-12, text


def _parity(gate: Gate, parity: Measured) -> list[tuple[bool, str]]:
    """One line per value that is judged. A value that is no number is never enough."""
    lines = {
        "agreement": (
            parity.agreement >= gate.agreement,
            f"agreement on {parity.where} {parity.agreement:.4f}, at least {gate.agreement:g}",
        ),
        "sqnr_db": (
            parity.sqnr_db >= gate.sqnr_db,
            f"SQNR on {parity.where} {parity.sqnr_db:.1f} dB, at least {gate.sqnr_db:g}",
        ),
    }
    return [lines[name] for name in parity.judged]
