"""Which candidates a profile tries, the smallest first. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from optimizer.recipe import Override, Quantize, Scheme

Numerics = Literal["ptq", "qat", "mixed"]
"""Quantized after training; trained while quantized; or with the operators that err most left float."""


class Way(NamedTuple):
    """How a candidate is made. `budget`: the share of the source that pruning keeps; 1: it is not pruned."""

    budget: float
    scheme: Scheme
    numerics: Numerics

    def __str__(self) -> str:
        pruned = "" if self.budget >= 1 else f"pruned to {100 * self.budget:g} %, "
        how = {"ptq": "", "qat": " trained as such", "mixed": " with some operators float"}[self.numerics]
        return f"{pruned}{_SCHEMES[self.scheme]}{how}"


_SCHEMES: dict[Scheme, str] = {
    "int8": "int8",
    "int16x8": "int8 weights, int16 activations",
    "float16": "float16 weights",
    "dynamic": "int8 weights, float activations",
}


def budgets(settings: Override) -> list[float]:
    """Those of the recipe in ascending order, then the model as it is."""
    return [*sorted({budget for budget in settings.budgets if budget < 1}), 1.0]


def ways(budget: float, quantize: Quantize, *, trainable: bool, mixed: bool) -> list[Way]:
    """In the order of trying: each is for where the one before missed its gate.

    `trainable`: there are rows and a source to train; `mixed`: the profile's hardware has float operators.
    """
    whole = quantize.scheme == "int8"
    allowed: Iterable[tuple[Numerics, bool]] = (
        ("ptq", quantize.qat != "always" or not (trainable and whole)),
        ("qat", quantize.qat != "never" and trainable and whole),
        ("mixed", quantize.mixed != "never" and mixed and whole),
    )
    if quantize.mixed == "always" and mixed and whole:
        allowed = (("mixed", True),)
    return [Way(budget, quantize.scheme, numerics) for numerics, taken in allowed if taken]
