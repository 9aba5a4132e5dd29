"""Rules of recurrent layers (units) and of multi-head attention (heads, their inner sizes, output)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optimizer.prune.graph import Value
from optimizer.prune.labels import Labels
from optimizer.prune.site import Axis, Role, Said, Site, Sizes, Weight, total, width

_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


def _recurrent(site: Site) -> Said:
    """A unit is a column of every gate, a row of the recurrent kernel, and its place in the states."""
    units = site.makes("units", site.layer.units)
    for state in site.inputs[1:]:
        site.tie(state, units)
    return Said(_recurrent_weights(site, site.layer, units), {("units",): units}, [units] * len(site.call.outputs))


def _recurrent_weights(site: Site, layer: Any, units: Labels) -> list[Weight]:
    gates: Labels = np.tile(units, _GATES[type(layer).__name__])
    steps = site.in_shape[1] or 1
    kernel = Weight((Axis(site.first, "takes"), Axis(gates, "makes")), steps)
    recurrent = Weight((Axis(units, "takes"), Axis(gates, "makes")), steps)
    weights = [kernel, recurrent]
    if layer.use_bias:
        rank = len(layer.weights[2].shape)
        weights.append(Weight((*(None,) * (rank - 1), Axis(gates, "makes"))))
    return weights


def _bidirectional(site: Site) -> Said:
    """Both directions are configured alike, so unit i of one goes with unit i of the other."""
    both = (site.layer.forward_layer, site.layer.backward_layer)
    if any(_kind(layer) not in _GATES for layer in both) or len(site.inputs) + len(site.call.outputs) != 2:
        return site.stop("it holds a layer without a rule, or hands out states")
    ahead, back = (
        site.makes(f"{name}/units", layer.units) for name, layer in zip(("ahead", "back"), both, strict=True)
    )
    site.tie(ahead, back)
    weights = [*_recurrent_weights(site, both[0], ahead), *_recurrent_weights(site, both[1], back)]
    out = total([ahead, back]) if site.layer.merge_mode == "concat" else ahead
    sizes: Sizes = {("layer", "config", "units"): ahead, ("backward_layer", "config", "units"): back}
    return Said(weights, sizes, [out])


def _kind(layer: Any) -> str:
    return type(layer).__name__ if type(layer).__module__.startswith("keras.src.") else ""


def _attention(site: Site) -> Said:
    """MultiHeadAttention (Vaswani et al., arXiv 1706.03762): heads, query / value sizes and output are cut apart.

    The layer divides scores by the root of `key_dim`; with fewer dimensions left it would divide by less, so the
    query's weights shrink by the same root and the scores stay what they were.
    """
    layer, named = site.layer, site.call.named
    query, value = named.get("query"), named.get("value")
    key = named.get("key", value)
    given = [one for one in (query, key, value) if isinstance(one, Value)]
    if len(given) != 3 or not _plain(layer, len(site.in_shape)):
        return site.stop("it is a form of attention without a rule")
    for other in site.call.inputs:
        if other not in given:
            site.fix(site.of(other), "it is an attention mask")
    heads = site.makes("num_heads", layer.num_heads)
    inner = {"key_dim": site.makes("key_dim", layer.key_dim), "value_dim": site.makes("value_dim", layer.value_dim)}
    out = site.makes("output_shape", width(site.out_shape))
    parts: list[tuple[str, Role]] = [("key_dim", "both"), ("key_dim", "makes"), ("value_dim", "makes")]
    weights: list[Weight] = []
    for one, (dim, role) in zip(given, parts, strict=True):
        weights += _projection(site, one, (Axis(heads, "makes"), Axis(inner[dim], role)))
    steps = site.out_shape[1] or 1
    weights.append(Weight((Axis(heads, "takes"), Axis(inner["value_dim"], "takes"), Axis(out, "makes")), steps))
    weights += [Weight((Axis(out, "makes"),))] * layer.use_bias
    sizes: Sizes = {
        ("num_heads",): heads,
        ("output_shape",): out,
        **{(name,): labels for name, labels in inner.items()},
    }
    outputs = [out, *(site.others(scores) for scores in site.call.outputs[1:])]
    for scores in outputs[1:]:
        site.fix(scores, "it hands out its scores")
    pairs = steps * (given[1].shape[1] or 1)
    products = [Weight((Axis(heads, "makes"), Axis(labels, "makes")), pairs) for labels in inner.values()]
    return Said(weights, sizes, outputs, products)


def _projection(site: Site, given: Value, inside: tuple[Axis, Axis]) -> list[Weight]:
    """Kernel and bias of the query, key or value. Only the query's, whose inner size "both" makes and takes, shrink."""
    steps, root = given.shape[1] or 1, inside[1].labels if inside[1].role == "both" else None
    kernel = Weight((Axis(site.of(given), "takes"), *inside), steps, root)
    return [kernel, *[Weight(inside, 0, root)] * site.layer.use_bias]


def _plain(layer: Any, rank: int) -> bool:
    """Over one axis of steps, without a gate, its output the size of one axis."""
    config = layer.get_config()
    shape = config.get("output_shape")
    axes = config.get("attention_axes")
    flat = shape is None or isinstance(shape, int) or len(shape) == 1
    return rank == 3 and flat and not config.get("use_gate") and (axes is None or list(axes) == [1])


SEQUENCES: dict[str, Callable[[Site], Said]] = {
    **dict.fromkeys(_GATES, _recurrent),
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _attention,
}
