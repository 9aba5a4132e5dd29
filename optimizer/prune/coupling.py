"""Coupled channels of a whole model: every rule applied once in order, then classes, groups and barriers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from optimizer.errors import RefusedError
from optimizer.prune.graph import Call, graph_of
from optimizer.prune.labels import Atoms, Labels
from optimizer.prune.rules import rule_for
from optimizer.prune.site import Axis, Maker, Said, Site, Sizes, Weight, width

Kept = NDArray[np.bool_]
"""By class of channels: whether it stays."""

_OTHERS = (keras.activations.softmax, keras.activations.log_softmax)


class Record(NamedTuple):
    """A layer: its weights' axes and its configured sizes, labelled by classes."""

    path: tuple[str, ...]
    layer: Any
    weights: tuple[Weight, ...]
    sizes: Sizes
    products: tuple[Weight, ...]


class Group(NamedTuple):
    """Classes that are chosen among themselves: those of axes that are tied to each other.

    `axes`: the classes of every axis by its name; `free`: by place in `classes`; `reasons`: why the others stay.
    """

    name: str
    axes: Mapping[str, Labels]
    classes: Labels
    free: Kept
    reasons: tuple[str, ...]


class Barrier(NamedTuple):
    """A layer at which channels stay that could go otherwise, its kind and why."""

    path: str
    kind: str
    reason: str


class Coupling(NamedTuple):
    """`classes`: how many there are. `groups` in the order of the model, those without a free channel included."""

    classes: int
    records: tuple[Record, ...]
    groups: tuple[Group, ...]
    barriers: tuple[Barrier, ...]

    def everything(self) -> Kept:
        return np.ones(self.classes, np.bool_)

    def prunable(self) -> list[Group]:
        return [group for group in self.groups if group.free.any() and len(group.classes) > 1]


def couple(model: Any) -> Coupling:
    """The coupling of a built Functional or Sequential model. Raises RefusedError for other models."""
    graph = graph_of(model)
    maker = Maker(Atoms())
    labels: dict[int, Labels] = {}
    for value, tensor in zip(graph.inputs, model.inputs, strict=True):
        labels[value.number] = maker.axis(f"input {tensor.name}", width(value.shape))
        maker.atoms.fix(labels[value.number], f"input {tensor.name}", "input of the model")
    said: dict[tuple[str, ...], tuple[Call, Said]] = {}
    _check_places(graph.calls)
    for call in graph.calls:
        _visit(call, labels, maker, said)
    for value in graph.outputs:
        maker.atoms.fix(labels[value.number], "output", "output of the model")
    return _resolve(maker, said)


def _check_places(calls: Iterable[Call]) -> None:
    """Keras saves a layer that stands in several nested models once per model: its copies would go apart."""
    places: dict[int, tuple[str, ...]] = {}
    for call in calls:
        if places.setdefault(id(call.layer), call.path) != call.path:
            both = " and ".join("/".join(path) for path in (places[id(call.layer)], call.path))
            raise RefusedError(f"{both} are one layer in two models, which Keras does not save as one; use one of them")


def _visit(call: Call, labels: dict[int, Labels], maker: Maker, said: dict[tuple[str, ...], tuple[Call, Said]]) -> None:
    site = Site(call, call.layer, labels, maker)
    found = _apply(site)
    for value, out in zip(call.outputs, found.outputs, strict=True):
        labels[value.number] = out
    if call.path not in said:
        said[call.path] = (call, found)
        return
    for before, now in zip(_all_labels(said[call.path][1]), _all_labels(found), strict=True):
        maker.atoms.tie(before, now)


def _apply(site: Site) -> Said:
    rule = rule_for(site.layer)
    if rule is None:
        return site.stop("no rule for this kind of layer")
    if not all(len(labels) for labels in site.inputs) and not _ignores_inputs(site.layer):
        return site.stop("the number of its channels is not known")
    found = rule(site)
    if any(getattr(site.layer, "activation", None) is one for one in _OTHERS):
        site.fix(found.outputs[0], "softmax shares one sum between its channels")
    if not _fits(site.layer, found):
        return site.stop("its weights are not those of its kind")
    return found


def _ignores_inputs(layer: Any) -> bool:
    return type(layer).__name__ in ("Embedding", "InputLayer")


def _fits(layer: Any, said: Said) -> bool:
    """Whether the weights are shaped as the rule says: quantized or adapted (LoRA) layers are not."""
    shapes = [tuple(weight.shape) for weight in getattr(layer, "weights", [])]
    return len(shapes) == len(said.weights) and all(
        len(shape) == len(weight.axes)
        and all(axis is None or len(axis.labels) == size for axis, size in zip(weight.axes, shape, strict=True))
        for shape, weight in zip(shapes, said.weights, strict=True)
    )


def _all_labels(said: Said) -> list[Labels]:
    return [axis.labels for weight in said.weights for axis in weight.axes if axis] + list(said.sizes.values())


def _resolve(maker: Maker, said: Mapping[tuple[str, ...], tuple[Call, Said]]) -> Coupling:
    """From atoms to classes."""
    of = maker.atoms.classes()
    records = tuple(
        Record(
            path,
            call.layer,
            tuple(_weight(weight, of) for weight in found.weights),
            {place: of[labels] for place, labels in found.sizes.items()},
            tuple(_weight(product, of) for product in found.products),
        )
        for path, (call, found) in said.items()
    )
    reasons: dict[int, list[str]] = {}
    for fixed in maker.atoms.fixed:
        for one in np.unique(of[fixed.labels]).tolist():
            reasons.setdefault(one, []).append(f"{fixed.path}: {fixed.reason}")
    classes = int(of.max()) + 1 if len(of) else 0
    groups = _groups({name: of[labels] for name, labels in maker.axes.items()}, classes, reasons)
    return Coupling(classes, records, groups, _barriers(maker, said, of))


def _barriers(maker: Maker, said: Mapping[tuple[str, ...], Any], of: Labels) -> tuple[Barrier, ...]:
    """Where something stays that a weight makes and that is not input or output of the model anyway."""
    kinds = {"/".join(path): type(call.layer).__name__ for path, (call, _) in said.items()}
    made = {one for name, labels in maker.axes.items() if not name.startswith("input ") for one in of[labels].tolist()}
    for fixed in maker.atoms.fixed:
        if fixed.path not in kinds:
            made -= set(of[fixed.labels].tolist())
    return tuple(
        dict.fromkeys(
            Barrier(fixed.path, kinds[fixed.path], fixed.reason)
            for fixed in maker.atoms.fixed
            if fixed.path in kinds and not made.isdisjoint(of[fixed.labels].tolist())
        )
    )


def _weight(weight: Weight, of: Labels) -> Weight:
    axes = tuple(axis and Axis(of[axis.labels], axis.role) for axis in weight.axes)
    return Weight(axes, weight.places, None if weight.root_of is None else of[weight.root_of])


def _groups(axes: Mapping[str, Labels], classes: int, reasons: Mapping[int, list[str]]) -> tuple[Group, ...]:
    """Axes that share a class are one group."""
    together = Atoms()
    nodes = together.fresh(classes)
    for labels in axes.values():
        together.tie(nodes[labels[:1].repeat(len(labels))], nodes[labels])
    group_of = together.classes()
    found: dict[int, dict[str, Labels]] = {}
    for name, labels in axes.items():
        if len(labels) and not name.startswith("input "):
            found.setdefault(int(group_of[labels[0]]), {})[name] = labels
    return tuple(_group(members, reasons) for members in found.values())


def _group(axes: Mapping[str, Labels], reasons: Mapping[int, list[str]]) -> Group:
    classes: Labels = np.unique(np.concatenate(list(axes.values())))
    free = np.array([one not in reasons for one in classes.tolist()])
    return Group(next(iter(axes)), axes, classes, free, _why(classes.tolist(), reasons))


def _why(classes: Iterable[int], reasons: Mapping[int, list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reason for one in classes for reason in reasons.get(one, ())))
