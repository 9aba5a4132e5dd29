"""Lepta's optimizer: trained models become small int8 ones, per class of devices, with proof of what they lost.

    import optimizer

    result = optimizer.optimize("model.keras", "data.npz", profiles=("x86-cpu", "rpi4"))
    print(result)
    result.save("out")

What a recipe takes, in this order:

- distillation: Hinton, Vinyals, Dean, arXiv 1503.02531;
- structured pruning of coupled channels, found from the graph (the idea of DepGraph, arXiv 2301.12900), by importance
  such as first-order Taylor (Molchanov et al., arXiv 1906.10771), with the float model as the teacher;
- magnitude pruning: Zhu, Gupta, arXiv 1710.01878;
- quantization after training, or with it: Jacob et al., arXiv 1712.05877.

The smallest candidate that passes its gate on validation is judged once more on test. The gate compares the artifact
with the float model row by row: the loss of accuracy, with its one-sided 95 % bound (Tango, Statistics in Medicine 17,
1998, for the paired table of McNemar), agreement of the first class, and SQNR in dB.

All work is done in child processes that import TensorFlow themselves: the program that calls may have imported it or
not. Accuracies are shares from 0 to 1, latencies ms for one row, sizes bytes. docs/guides/optimize.md has more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware_profiles.profile import Profile
    from firmware_profiles.profile import find as find_profile
    from optimizer.api import Built, Result, optimize
    from optimizer.errors import CancelledError, OptimizerError, RefusedError, StepError
    from optimizer.given import Preprocessing
    from optimizer.recipe import Recipe
    from optimizer.recipe import find as find_recipe
    from optimizer.recipe import parse as parse_recipe
    from optimizer.report import Report

__all__ = [
    "Built",
    "CancelledError",
    "OptimizerError",
    "Preprocessing",
    "Profile",
    "Recipe",
    "RefusedError",
    "Report",
    "Result",
    "StepError",
    "find_profile",
    "find_recipe",
    "optimize",
    "parse_recipe",
]

# Imported when first asked for: every process of the optimizer imports this package, and few need these.
_HOMES = {
    "Built": "optimizer.api:Built",
    "CancelledError": "optimizer.errors:CancelledError",
    "OptimizerError": "optimizer.errors:OptimizerError",
    "Preprocessing": "optimizer.given:Preprocessing",
    "Profile": "firmware_profiles.profile:Profile",
    "Recipe": "optimizer.recipe:Recipe",
    "RefusedError": "optimizer.errors:RefusedError",
    "Report": "optimizer.report:Report",
    "Result": "optimizer.api:Result",
    "StepError": "optimizer.errors:StepError",
    "find_profile": "firmware_profiles.profile:find",
    "find_recipe": "optimizer.recipe:find",
    "optimize": "optimizer.api:optimize",
    "parse_recipe": "optimizer.recipe:parse",
}


def __getattr__(name: str) -> Any:
    home, _, inside = _HOMES.get(name, "").partition(":")
    if not home:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), inside)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
