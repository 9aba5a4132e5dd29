"""How tensorflow-model-optimization rounds a model, mended: kernels are rounded whatever follows their layer.

Left to itself, it takes every rounding out of a convolution or dense layer that an activation layer follows, that of
its kernel included; then training knows nothing of the kernel's scales, and the converter picks others.
"""

from __future__ import annotations

from typing import Any

from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry as registry,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_scheme as schemes,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_transforms as transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
    model_transformer,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
    transforms as patterns,
)

CONFIGS = {
    "Default8BitQuantizeConfig": registry.Default8BitQuantizeConfig,
    "Default8BitConvQuantizeConfig": registry.Default8BitConvQuantizeConfig,
}
"""By which a model with own settings for its kernels is copied."""
_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}


def config_of(layer: Any, per_channel: bool) -> Any:
    """Rounding of the kernel, and of the output unless an activation layer follows; None: as the library does it."""
    name = _KERNELS.get(type(layer).__name__)
    if name is None:
        return None
    kind = (
        "Default8BitConvQuantizeConfig"
        if per_channel and "Conv" in type(layer).__name__
        else "Default8BitQuantizeConfig"
    )
    return CONFIGS[kind]([name], [] if _activated_after(layer) else ["activation"], False)


def supports(layer: Any) -> bool:
    """Whether the library can round a layer of that kind."""
    known = registry.Default8BitQuantizeRegistry().supports(layer)
    return bool(known) or type(layer).__name__ in ("SeparableConv1D", "SeparableConv2D", "InputLayer")


class Scheme(schemes.Default8BitQuantizeScheme):  # type: ignore[misc]
    """The library's own, but for what it takes out of layers before an activation."""

    def get_layout_transformer(self) -> Any:
        return _Layout()


class _Layout:
    def apply(self, model: Any, configs: dict[str, Any]) -> Any:
        concatenations = [getattr(transforms, f"ConcatTransform{count}") for count in _COUNTS]
        kinds = [transforms.InputLayerQuantize, transforms.SeparableConv1DQuantize, transforms.SeparableConvQuantize]
        steps = [kind() for kind in (*kinds, *concatenations, _AddThenReLU, _AddThenActivation)]
        return model_transformer.ModelTransformer(model, steps, set(configs), configs).transform()


_COUNTS = ("6Inputs", "5Inputs", "4Inputs", "3Inputs", "")


class _AddThenReLU(transforms.LayerReLUQuantize):  # type: ignore[misc]
    def pattern(self) -> Any:
        return patterns.LayerPattern("ReLU", inputs=[patterns.LayerPattern("Add")])


class _AddThenActivation(transforms.LayerReLUQuantize):  # type: ignore[misc]
    def pattern(self) -> Any:
        return patterns.LayerPattern("Activation", config={"activation": "relu"}, inputs=[patterns.LayerPattern("Add")])


def _activated_after(layer: Any) -> bool:
    after = [node.layer for node in layer.outbound_nodes]
    linear = getattr(layer.activation, "__name__", "") == "linear"
    return linear and len(after) == 1 and type(after[0]).__name__ in ("ReLU", "Activation")
