"""Whole residual branches: found and taken out of a model, so that only their shortcut is left.

The depth counterpart of cutting channels (Veit et al., "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", arXiv 1605.06431). Works on Keras' own configuration, which says how layers are wired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from optimizer.prune.surgery import layers_of, models_in, revived, unbuilt

History = tuple[str, int, int]
"""Where a tensor comes from: a layer's name, the number of its call and of its output."""


class Block(NamedTuple):
    """A branch that ends in an addition. `model`: names of the nested models that hold it."""

    model: tuple[str, ...]
    add: str
    layers: tuple[str, ...]
    """Of the branch: these go, and the addition."""
    shortcut: History

    @property
    def name(self) -> str:
        return "/".join((*self.model, self.add))


def blocks_of(model: Any) -> list[Block]:
    """Every branch that an addition joins to its own start, nothing of which is used elsewhere."""
    config = keras.saving.serialize_keras_object(model)
    return [block for path, part in models_in(config) for block in _in_one(path, part["config"])]


def without(model: Any, blocks: Sequence[Block]) -> Any:
    """A new model in which each of `blocks` is its shortcut alone; all other weights are the same."""
    config = unbuilt(keras.saving.serialize_keras_object(model))
    for path, part in models_in(config):
        here = [block for block in blocks if block.model == path]
        if here:
            _take_out(part["config"], here)
    smaller = revived(config, model)
    before = dict(layers_of(model))
    for path, layer in layers_of(smaller):
        if layer.weights and not isinstance(layer, keras.Model):
            layer.set_weights(before[path].get_weights())
    return smaller


def spare(model: Any, loss: Callable[[Any], float], tolerated: float) -> list[Block]:
    """The blocks that can go together while `loss(model)` rises by at most `tolerated`, least missed first."""
    before = loss(model)
    rises = [(loss(without(model, [block])) - before, block) for block in blocks_of(model)]
    gone: list[Block] = []
    for rise, block in sorted(rises, key=lambda pair: pair[0]):
        if rise > tolerated or loss(without(model, [*gone, block])) - before > tolerated:
            break
        gone.append(block)
    return gone


def _in_one(path: tuple[str, ...], config: Mapping[str, Any]) -> Iterator[Block]:
    entries = {str(entry["name"]): entry for entry in config["layers"] if "inbound_nodes" in entry}
    users: dict[str, set[str]] = {}
    for name, entry in entries.items():
        for history, _ in _tensors(entry["inbound_nodes"]):
            users.setdefault(history[0], set()).add(name)
    for name in _names(config.get("output_layers", [])):
        users.setdefault(name, set()).add("")
    for name, entry in entries.items():
        ends = list(_tensors(entry["inbound_nodes"]))
        if entry["class_name"] != "Add" or len(entry["inbound_nodes"]) != 1 or len(ends) != 2:
            continue
        for (shortcut, shape), (branch, other) in (ends, ends[::-1]):
            inside = _branch(entries, users, shortcut, branch, name)
            if shape == other and inside:
                yield Block(path, name, inside, shortcut)
                break


def _branch(
    entries: Mapping[str, Any], users: Mapping[str, set[str]], shortcut: History, branch: History, add: str
) -> tuple[str, ...]:
    """The layers between shortcut and branch; none where a way around them leads in or out."""
    inside: list[str] = []
    waiting = [branch]
    while waiting:
        history = waiting.pop()
        if history == shortcut or history[0] in inside:
            continue
        nodes = entries[history[0]]["inbound_nodes"]
        if len(nodes) != 1 or history[0] == shortcut[0]:
            return ()
        inside.append(history[0])
        waiting += [before for before, _ in _tensors(nodes)]
    closed = all(users[name] <= {*inside, add} for name in inside)
    return tuple(inside) if closed else ()


def _take_out(config: dict[str, Any], blocks: Sequence[Block]) -> None:
    gone = {name for block in blocks for name in (*block.layers, block.add)}
    instead = {block.add: block.shortcut for block in blocks}

    def resolved(history: Sequence[Any]) -> list[Any]:
        name, *_ = history
        while name in instead:
            history = instead[name]
            name = history[0]
        return list(history)

    config["layers"] = [entry for entry in config["layers"] if entry["name"] not in gone]
    for entry in config["layers"]:
        for tensor in _configs_of_tensors(entry["inbound_nodes"]):
            tensor["keras_history"] = resolved(tensor["keras_history"])
    config["output_layers"] = _mapped(config["output_layers"], resolved)


def _tensors(value: Any) -> Iterator[tuple[History, list[Any]]]:
    for config in _configs_of_tensors(value):
        name, node, tensor = config["keras_history"]
        yield (str(name), int(node), int(tensor)), list(config["shape"])


def _configs_of_tensors(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]
        else:
            for part in value.values():
                yield from _configs_of_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _configs_of_tensors(part)


def _is_history(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str)


def _names(value: Any) -> Iterator[str]:
    if _is_history(value):
        yield value[0]
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _names(part)


def _mapped(value: Any, change: Callable[[Sequence[Any]], list[Any]]) -> Any:
    if _is_history(value):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(part, change) for name, part in value.items()}
    return [_mapped(part, change) for part in value]
