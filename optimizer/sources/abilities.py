"""What can be done with each kind of source; a recipe that asks for more is refused before work starts."""

from __future__ import annotations

from typing import Literal

import msgspec

from optimizer.recipe import Compare, Override, Quantize, Recipe
from optimizer.sources.kinds import Kind
from optimizer.sources.specs import SourceError

Table = Literal["distill", "prune", "sparsify", "quantize"]

_TRAINED: frozenset[Table] = frozenset({"distill", "prune", "sparsify", "quantize"})
_FIXED: frozenset[Table] = frozenset({"quantize"})
CAN: dict[Kind, frozenset[Table]] = {
    "keras": _TRAINED,
    "h5": _TRAINED,
    "saved-model": _FIXED,
    "tflite": _FIXED,
    "torch": _FIXED,
    "onnx": _FIXED,
}
NAMES: dict[Kind, str] = {
    "keras": "a .keras file",
    "h5": "a .h5 file",
    "saved-model": "a SavedModel",
    "tflite": "a .tflite file",
    "torch": "a .pt2 file",
    "onnx": "an .onnx file",
}
_DOES: dict[Table, str] = {"distill": "distilled", "prune": "pruned", "sparsify": "sparsified", "quantize": "quantized"}


def can_train(kind: Kind) -> bool:
    return "prune" in CAN[kind]


def check_recipe(kind: Kind, recipe: Recipe, source_name: str) -> None:
    """Raises SourceError where the recipe asks for what this kind of source cannot do. `source_name` stands in it."""
    asked: tuple[tuple[Table, object], ...] = (
        ("distill", recipe.distill),
        ("prune", recipe.prune),
        ("sparsify", recipe.sparsify),
    )
    beyond = [table for table, settings in asked if settings is not None and table not in CAN[kind]]
    if beyond:
        tables = ", ".join(f"[{table}]" for table in beyond)
        done = " and ".join(_DOES[table] for table in beyond)
        raise SourceError(f"{source_name} is {NAMES[kind]}, which cannot be {done} (the recipe's {tables}); {_INSTEAD}")
    if can_train(kind):
        return
    if any(found.qat == "always" for found in _quantizations(recipe)):
        raise SourceError(
            f"{source_name} is {NAMES[kind]}, which cannot be trained (the recipe's qat = 'always'); {_INSTEAD}"
        )


def suited(kind: Kind, recipe: Recipe) -> Recipe:
    """The recipe without what this kind of source cannot do: for a recipe that nobody asked for."""
    if can_train(kind):
        return recipe
    return msgspec.structs.replace(
        recipe,
        distill=None,
        prune=None,
        sparsify=None,
        quantize=_untrained(recipe.quantize),
        compare=Compare(tfmot=False, scratch=False),
        seeds=1,
        profiles={name: _fixed(given) for name, given in recipe.profiles.items()},
    )


_INSTEAD = "take --recipe ptq, or give the Keras model: model.save('x.keras')"


def _quantizations(recipe: Recipe) -> list[Quantize]:
    return [recipe.quantize, *(given.quantize for given in recipe.profiles.values() if given.quantize is not None)]


def _untrained(quantize: Quantize) -> Quantize:
    return msgspec.structs.replace(quantize, qat="never")


def _fixed(given: Override) -> Override:
    return Override(quantize=None if given.quantize is None else _untrained(given.quantize))
