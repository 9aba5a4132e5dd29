"""What a rule sees of a call, and what it says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from optimizer.prune.graph import Call, Shape, Value
from optimizer.prune.labels import Atoms, Labels

Role = Literal["makes", "takes", "both", "scales", "follows"]
"""How a weight's axis serves a channel: it makes it, takes it in, does both, scales it, or is only as long."""


class Axis(NamedTuple):
    labels: Labels
    role: Role


class Weight(NamedTuple):
    """One weight of a layer.

    `axes`: by its own axes; None is never cut. `places`: multiply-accumulates per element and row of data.
    `root_of`: the weight is scaled by the square root of the share of these labels that stay.
    """

    axes: tuple[Axis | None, ...]
    places: int = 0
    root_of: Labels | None = None


Sizes = Mapping[tuple[str, ...], Labels]
"""Place in a layer's configuration -> the labels whose number stands there (in a shape: as its last)."""


class Said(NamedTuple):
    """What a rule says: `weights` in the order of `layer.weights`, `outputs` by the call's outputs.

    `products`: what is multiplied with each other and not with a weight, counted like one (attention).
    """

    weights: list[Weight]
    sizes: Sizes
    outputs: list[Labels]
    products: Sequence[Weight] = ()


@dataclass
class Maker:
    """Hands out atoms for the axes that layers make; a layer called again gets those of its first call."""

    atoms: Atoms
    axes: dict[str, Labels] = field(default_factory=dict)

    def axis(self, name: str, count: int) -> Labels:
        if name not in self.axes:
            self.axes[name] = self.atoms.fresh(count)
        return self.axes[name]


@dataclass(frozen=True)
class Site:
    """A call with the labels of what goes in."""

    call: Call
    layer: Any
    labels: Mapping[int, Labels]
    maker: Maker
    inside: str = ""

    @property
    def path(self) -> str:
        return "/".join(self.call.path)

    @property
    def weights(self) -> Sequence[Any]:
        """An operation like `a + b` has none."""
        return getattr(self.layer, "weights", ())

    @property
    def given(self) -> list[Value]:
        """What goes in, but for masks: those say which steps count and carry no channels."""
        masks = [part for name, part in self.call.named.items() if name.endswith("mask")]
        return [value for value in self.call.inputs if value not in masks]

    @property
    def inputs(self) -> list[Labels]:
        return [self.of(value) for value in self.given]

    @property
    def first(self) -> Labels:
        return self.inputs[0]

    @property
    def in_shape(self) -> Shape:
        return self.call.inputs[0].shape

    @property
    def out_shape(self) -> Shape:
        return self.call.outputs[0].shape

    def of(self, value: Value) -> Labels:
        return self.labels[value.number]

    def makes(self, name: str, count: int) -> Labels:
        return self.maker.axis(f"{self.path}{self.inside}/{name}", count)

    def others(self, value: Value) -> Labels:
        """Channels of a tensor that no weight is known to make."""
        return self.maker.atoms.fresh(width(value.shape))

    def tie(self, a: Labels, b: Labels) -> None:
        self.maker.atoms.tie(a, b)

    def alike(self, labels: Labels, groups: int) -> Labels:
        """Make the channels of equal place in every one of `groups` one; returns those of the first group."""
        parts = labels.reshape(groups, -1)
        for part in parts[1:]:
            self.tie(parts[0], part)
        first: Labels = parts[0]
        return first

    def fix(self, labels: Labels, reason: str) -> None:
        self.maker.atoms.fix(labels, self.path, reason)

    def within(self, layer: Any, name: str) -> Site:
        """The same call as that of a layer inside of this one."""
        return replace(self, layer=layer, inside=f"{self.inside}/{name}")

    def stop(self, reason: str) -> Said:
        """A barrier: nothing that goes in or comes out may be cut."""
        for labels in self.inputs:
            self.fix(labels, reason)
        outputs = [self.others(value) for value in self.call.outputs]
        for labels in outputs:
            self.fix(labels, reason)
        return Said([Weight((None,) * len(weight.shape)) for weight in self.weights], {}, outputs)


def width(shape: Shape) -> int:
    """Channels of a tensor: the size of its last axis, 0 where that is the batch or unknown."""
    return int(shape[-1] or 0) if len(shape) > 1 else 0


def places(shape: Shape) -> int:
    """Positions of one row at which channels stand; a size that is not known counts once."""
    return math.prod(size or 1 for size in shape[1:-1])


def bias(layer: Any, labels: Labels) -> list[Weight]:
    return [Weight((Axis(labels, "makes"),))] if getattr(layer, "use_bias", False) else []


def total(labels: list[Labels]) -> Labels:
    found: Labels = np.concatenate(labels)
    return found
