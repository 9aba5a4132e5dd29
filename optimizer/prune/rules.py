"""One rule per kind of layer: what it does to the channels that pass. Layers that are not listed are barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optimizer.prune.rules_makers import MAKERS
from optimizer.prune.rules_sequences import SEQUENCES
from optimizer.prune.site import Axis, Said, Site, Sizes, Weight, places, total, width

Rule = Callable[[Site], Said]
_Array = np.ndarray[Any, np.dtype[np.int64]]


def rule_for(layer: Any) -> Rule | None:
    """The rule of a layer of Keras itself; a class of somebody else has none, whatever its name."""
    if not type(layer).__module__.startswith("keras.src."):
        return None
    return _RULES.get(type(layer).__name__)


def _entry(site: Site) -> Said:
    """The input of a model, also of a nested one: its shape follows what is fed to it."""
    return Said([], {("batch_shape",): site.first}, [site.first])


def _passing(site: Site) -> Said:
    """Every channel comes out by itself; weights along the last axis are as long as it (PReLU)."""
    if len(site.inputs) != 1 or width(site.out_shape) != len(site.first):
        return site.stop("its channels are not those that go in")
    weights = [_along(site, tuple(weight.shape), "scales") for weight in site.weights]
    return Said(weights, {}, [site.first])


def _over_places(site: Site) -> Said:
    """Pooling, padding, cropping, up-sampling: places change, channels do not."""
    if getattr(site.layer, "data_format", "channels_last") != "channels_last":
        return site.stop("channels must stand last")
    return _passing(site)


def _norm(site: Site) -> Said:
    """BatchNormalization over the last axis is one map per channel.

    LayerNormalization and RMSNormalization (Ba et al., arXiv 1607.06450) average over what is left: cutting them is
    no longer the same as setting channels to zero, which is what fine-tuning is for.
    """
    axis = getattr(site.layer, "axis", -1)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if [one % len(site.in_shape) for one in axes] != [len(site.in_shape) - 1]:
        return site.stop("it normalizes over an axis other than the last")
    weights = [_along(site, tuple(w.shape), _norm_role(w.name)) for w in site.weights]
    return Said(weights, {}, [site.first])


def _group_norm(site: Site) -> Said:
    """GroupNormalization (Wu and He, arXiv 1803.08494): groups stay of equal size, but where each is one channel.

    Like LayerNormalization it averages over the channels that are left.
    """
    found = _norm(site)
    groups = int(site.layer.groups)
    if found.outputs[0] is not site.first:
        return found
    if groups == len(site.first):
        return found._replace(sizes={("groups",): site.first})
    site.alike(site.first, groups)
    return found


def _norm_role(name: str) -> Any:
    return "scales" if name in ("gamma", "scale") else "follows"


def _along(site: Site, shape: tuple[int, ...], role: Any) -> Weight:
    last = Axis(site.first, role) if shape and shape[-1] == len(site.first) else None
    return Weight((*(None for _ in shape[1:]), last) if shape else ())


def _constants(site: Site) -> Said:
    """Numbers per channel stand in the layer's configuration: what goes in stays whole."""
    site.fix(site.first, "it holds a constant per channel")
    return Said([Weight((None,) * len(w.shape)) for w in site.weights], {}, [site.first])


def _rescaling(site: Site) -> Said:
    per_channel = any(np.ndim(number) for number in (site.layer.scale, site.layer.offset))
    return _constants(site) if per_channel else _passing(site)


def _merge(site: Site) -> Said:
    """Element by element: channels of equal place are one. A single channel (an attention map) is spread over all."""
    shapes = [value.shape for value in site.given]
    sizes = {len(labels) for labels in site.inputs} - {1}
    if len({len(shape) for shape in shapes}) != 1 or len(sizes) > 1 or _has_constants(site):
        return site.stop("it joins tensors of different ranks or sizes, or constants")
    wide = [labels for labels in site.inputs if len(labels) == max(map(len, site.inputs))]
    for other in wide[1:]:
        site.tie(wide[0], other)
    return Said([], {}, [wide[0]])


def _has_constants(site: Site) -> bool:
    return any(np.ndim(part) > 0 for part in site.call.named.values() if isinstance(part, np.ndarray))


def _concatenate(site: Site) -> Said:
    axis = int(getattr(site.layer, "axis", -1)) % len(site.out_shape)
    if axis == len(site.out_shape) - 1:
        return Said([], {}, [total(site.inputs)])
    for other in site.inputs[1:]:
        site.tie(site.first, other)
    return Said([], {}, [site.first])


def _reshape(site: Site) -> Said:
    """Flatten and Reshape: follow every element; those that land in one column of the last axis are one."""
    source, target = site.in_shape[1:], site.out_shape[1:]
    if any(size is None for size in (*source, *target)):
        return site.stop("it reshapes sizes that are not known")
    elements: _Array = np.tile(site.first, places(site.in_shape))
    rows = elements.reshape(-1, int(target[-1] or 1))
    for row in np.unique(rows, axis=0):
        site.tie(rows[0], row)
    sizes: Sizes = {("target_shape",): rows[0]} if hasattr(site.layer, "target_shape") else {}
    return Said([], sizes, [rows[0]])


def _permute(site: Site) -> Said:
    if site.layer.dims[-1] != len(site.in_shape) - 1:
        return site.stop("it moves the channels to another axis")
    return _passing(site)


def _softmax(site: Site) -> Said:
    axis = getattr(site.layer, "axis", -1)
    if not isinstance(axis, int) or axis % len(site.in_shape) == len(site.in_shape) - 1:
        site.fix(site.first, "softmax shares one sum between its channels")
    return _passing(site)


_ELEMENTWISE = """
    Identity Activation ReLU LeakyReLU ELU PReLU Masking
    Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
    ActivityRegularization RepeatVector
    Relu Relu6 Sigmoid Silu SiLU Gelu Selu Elu Celu LeakyRelu HardSigmoid HardSwish HardSilu HardTanh Softplus Softsign
    Mish LogSigmoid Tanh TanhShrink SoftShrink HardShrink
    Negative Absolute Square Sqrt Rsqrt Exp Expm1 Log Log1p Clip Cast StopGradient
""".split()
_OVER_PLACES = [
    *(f"{kind}{n}D" for kind in ("MaxPooling", "AveragePooling") for n in (1, 2, 3)),
    *(f"Global{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)),
    *(f"Adaptive{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)),
]
_MERGES = "Add Subtract Multiply Average Maximum Minimum Divide TrueDivide".split()
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _passing),
    **dict.fromkeys(_OVER_PLACES, _over_places),
    **dict.fromkeys(_MERGES, _merge),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "RMSNormalization"), _norm),
    "GroupNormalization": _group_norm,
    **MAKERS,
    **SEQUENCES,
    "InputLayer": _entry,
    "Normalization": _constants,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Permute": _permute,
    "Softmax": _softmax,
}
