"""Rules of layers that make channels by a kernel: dense layers and convolutions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from optimizer.prune.graph import Value
from optimizer.prune.labels import Labels
from optimizer.prune.site import Axis, Said, Site, Weight, bias, places, width


def _dense(site: Site) -> Said:
    out = site.makes("units", site.layer.units)
    kernel = Weight((Axis(site.first, "takes"), Axis(out, "makes")), places(site.out_shape))
    return Said([kernel, *bias(site.layer, out)], {("units",): out}, [out])


def _einsum(site: Site) -> Said:
    """EinsumDense that is a dense layer over the last axis, such as "abc,cd->abd" or "...x,xy->...y"."""
    taken, kernel, given = re.split(r",|->", site.layer.equation.replace(" ", ""))
    named = getattr(site.layer, "bias_axes", None) or ""
    plain = len(kernel) == 2 and taken[-1:] == kernel[0] and given == taken[:-1] + kernel[1] and kernel[1] not in taken
    if not plain or kernel[0] in given or len(site.inputs) != 1 or named not in ("", kernel[1]):
        return site.stop("it sums over other axes than the last")
    out = site.makes("output_shape", width(site.out_shape))
    weights = [Weight((Axis(site.first, "takes"), Axis(out, "makes")), places(site.out_shape))]
    return Said([*weights, *[Weight((Axis(out, "makes"),))] * bool(named)], {("output_shape",): out}, [out])


def _conv(site: Site) -> Said:
    if (why := _unusual(site)) is not None:
        return site.stop(why)
    if site.layer.groups > 1:
        return _grouped(site)
    out = site.makes("filters", site.layer.filters)
    axes = (*_window(site), Axis(site.first, "takes"), Axis(out, "makes"))
    return Said([Weight(axes, places(site.out_shape)), *bias(site.layer, out)], {("filters",): out}, [out])


def _grouped(site: Site) -> Said:
    """Groups stay of equal size: the first channels of all groups go together, the second ones, and so on.

    With a group per channel it is a depthwise convolution, whose groups themselves go.
    """
    groups, layer = site.layer.groups, site.layer
    at = places(site.out_shape)
    if groups == len(site.first):
        many: Labels = np.repeat(site.first, layer.filters // groups)
        kernel = Weight((*_window(site), None, Axis(many, "makes")), at)
        return Said([kernel, *bias(layer, many)], {("filters",): many, ("groups",): site.first}, [many])
    out = site.makes("filters", layer.filters)
    kernel = Weight((*_window(site), Axis(site.alike(site.first, groups), "takes"), Axis(out, "makes")), at)
    site.alike(out, groups)
    return Said([kernel, *bias(layer, out)], {("filters",): out}, [out])


def _transposed(site: Site) -> Said:
    if (why := _unusual(site)) is not None:
        return site.stop(why)
    out = site.makes("filters", site.layer.filters)
    axes = (*_window(site), Axis(out, "makes"), Axis(site.first, "takes"))
    return Said([Weight(axes, places(site.in_shape)), *bias(site.layer, out)], {("filters",): out}, [out])


def _depthwise(site: Site) -> Said:
    if (why := _unusual(site)) is not None:
        return site.stop(why)
    out = _multiplied(site)
    kernel = Weight((*_window(site), Axis(site.first, "makes"), None), places(site.out_shape))
    return Said([kernel, *bias(site.layer, out)], {}, [out])


def _separable(site: Site) -> Said:
    if (why := _unusual(site)) is not None:
        return site.stop(why)
    out = site.makes("filters", site.layer.filters)
    at = places(site.out_shape)
    depthwise = Weight((*_window(site), Axis(site.first, "follows"), None), at)
    pointwise = Weight((*_window(site), Axis(_multiplied(site), "takes"), Axis(out, "makes")), at)
    return Said([depthwise, pointwise, *bias(site.layer, out)], {("filters",): out}, [out])


def _embedding(site: Site) -> Said:
    out = site.makes("output_dim", site.layer.output_dim)
    return Said([Weight((None, Axis(out, "makes")))], {("output_dim",): out}, [out])


def _each_step(site: Site) -> Said:
    """TimeDistributed: the layer inside sees every step by itself."""
    inner = site.layer.layer
    rule = MAKERS.get(type(inner).__name__)
    if rule is None or not type(inner).__module__.startswith("keras.src.") or len(site.call.outputs) != 1:
        return site.stop(f"{type(inner).__name__} inside of it has no rule")
    steps = site.in_shape[1] or 1
    inputs, outputs = (tuple(map(_one_step, values)) for values in (site.call.inputs, site.call.outputs))
    said = rule(replace(site.within(inner, "layer"), call=site.call._replace(inputs=inputs, outputs=outputs)))
    weights = [weight._replace(places=weight.places * steps) for weight in said.weights]
    return Said(weights, {("layer", "config", *place): labels for place, labels in said.sizes.items()}, said.outputs)


def _one_step(value: Value) -> Value:
    return value._replace(shape=(value.shape[0], *value.shape[2:]))


def _unusual(site: Site) -> str | None:
    if getattr(site.layer, "data_format", "channels_last") != "channels_last":
        return "channels must stand last"
    return None


def _window(site: Site) -> list[None]:
    return [None] * len(site.layer.kernel_size)


def _multiplied(site: Site) -> Labels:
    """Every channel gives `depth_multiplier` ones, next to each other."""
    repeated: Labels = np.repeat(site.first, site.layer.depth_multiplier)
    return repeated


MAKERS: dict[str, Callable[[Site], Said]] = {
    "Dense": _dense,
    "EinsumDense": _einsum,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Embedding": _embedding,
    "TimeDistributed": _each_step,
}
