"""What an artifact's numbers are to be: read from a pass' settings, and checked against each other. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from optimizer.errors import RefusedError

Scheme = Literal["int8", "int16x8", "float16", "dynamic"]
Sharing = Literal["per-channel", "per-tensor"]
Port = Literal["int8", "uint8", "int16", "float32"]

_PORTS: dict[Scheme, tuple[Port, ...]] = {
    "int8": ("int8", "uint8", "float32"),
    "int16x8": ("int16", "float32"),
    "float16": ("float32",),
    "dynamic": ("float32",),
}


class ConversionError(RefusedError):
    """A model that cannot be brought to the numbers that are wanted, or was not."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The arithmetic of an artifact. `input` and `output` are what its tensors hold outside."""

    scheme: Scheme = "int8"
    """int8: weights and activations; int16x8: weights in 8 bits, activations in 16; float16, dynamic: weights alone."""
    weights: Sharing = "per-channel"
    dense: Sharing = "per-channel"
    """Fully connected layers alone; `weights` per tensor holds for them too."""
    input: Port = "int8"
    output: Port = "int8"
    keep_float: tuple[str, ...] = ()
    """Operators that stay float, by the names that layer_errors.py gives; scheme int8 only."""
    mixed: bool = True
    """Whether operators that TFLite has no integer form for may stay float."""

    def port(self, wanted: Port) -> Port:
        """What the interface holds: the wanted kind, or, where this scheme has no int8 outside, its own."""
        return wanted if wanted in _PORTS[self.scheme] else _PORTS[self.scheme][0]


def options_from(settings: Mapping[str, Any]) -> Options:
    """Of a pass: the keys of Options, each with its default. Raises ConversionError for what cannot be."""
    known = {name: settings[name] for name in Options.__struct_fields__ if name in settings}
    try:
        options = msgspec.convert(known, Options)
    except msgspec.ValidationError as error:
        raise ConversionError(f"settings of quantize: {error}") from error
    if options.scheme == "int8" and "int16" in (options.input, options.output):
        raise ConversionError("an int16 interface goes with scheme int16x8; ask for that, or for int8 outside")
    if options.keep_float and options.scheme != "int8":
        raise ConversionError(f"keep_float is for scheme int8; {options.scheme} leaves no single operators float")
    if options.keep_float and not options.mixed:
        raise ConversionError("the profile's hardware has no float (numerics.mixed = false); keep_float needs it")
    return options
