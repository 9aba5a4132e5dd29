"""PURE: which columns of a table are which input of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.contract.tensors import TensorSpec
from controller.errors import UserError
from controller.job_inputs.wanted import IDS, LABEL_NAMES

_SHOWN = 5


@dataclass(frozen=True)
class Chosen:
    """Numbers of columns: per input in the order of its values (one column may hold a list of them all)."""

    inputs: dict[str, tuple[int, ...]]
    label: int | None
    id: int | None


def choose(names: Sequence[str], lists: frozenset[int], specs: Sequence[TensorSpec]) -> Chosen:
    """Find every input among the columns; raises UserError that names what is missing.

    An input of n values is a column of its name (with n values in a list, or n = 1), or the columns NAME_0 to
    NAME_(n-1). The only input may also be all columns beside id and label, in their order. `lists`: columns that hold
    a list in each row.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"the column {twice[0]!r} is there twice", "give each column a name of its own")
    place = {name: number for number, name in enumerate(names)}
    label = next((place[name] for name in LABEL_NAMES if name in place), None)
    identity = place.get(IDS)
    beside = {label, identity}
    others = [number for number in range(len(names)) if number not in beside]
    alone = len(specs) == 1
    inputs = {spec.name: _columns(spec, place, lists, names, others if alone else None) for spec in specs}
    return Chosen(inputs, label, identity)


def _columns(
    spec: TensorSpec, place: dict[str, int], lists: frozenset[int], names: Sequence[str], others: list[int] | None
) -> tuple[int, ...]:
    count = math.prod(spec.shape)
    own = place.get(spec.name)
    if own is not None and (count == 1 or own in lists):
        return (own,)
    wanted = [f"{spec.name}_{number}" for number in range(count)]
    missing = [name for name in wanted if name not in place]
    if not missing:
        return tuple(place[name] for name in wanted)
    if others is not None and (len(others) == count or (len(others) == 1 and others[0] in lists)):
        return tuple(others)
    told = f"it lacks {_some(missing)}" if len(missing) < count else f"it has {len(names)}: {_some(names)}"
    either = f", or {count} columns beside {IDS} and label" if others is not None else ""
    raise UserError(
        f"input {spec.name!r} of shape {list(spec.shape)} needs the columns {wanted[0]} to {wanted[-1]}, "
        f"or one column {spec.name} with a list of {count} numbers{either}; {told}",
        "name the columns so",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
