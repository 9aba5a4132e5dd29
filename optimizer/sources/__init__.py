"""The user's model, in any of the kinds that are taken. Refused by what stands in it first; loaded afterwards, in a
forked child."""

from __future__ import annotations

from optimizer.sources.abilities import CAN, check_recipe, suited
from optimizer.sources.checks import check_static
from optimizer.sources.keras_file import input_specs, load_source
from optimizer.sources.kinds import Kind, kind_of
from optimizer.sources.specs import InputSpec, SourceError

__all__ = [
    "CAN",
    "InputSpec",
    "Kind",
    "SourceError",
    "check_recipe",
    "check_static",
    "input_specs",
    "kind_of",
    "load_source",
    "suited",
]
