"""Lepta's optimizer: trained models become small int8 ones, per class of devices, with proof of what they lost.

    import optimizer

    result = optimizer.optimize("model.keras", "data.npz", profiles=("x86-cpu", "rpi4"))
    print(result)
    result.save("out")

`optimize` says what may be given and what comes back; docs/guides/optimize.md has more.
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
