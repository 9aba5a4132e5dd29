"""What comes of one seed: plain numbers, read without TensorFlow."""

from __future__ import annotations

import msgspec

from optimizer.macs import Size


class Quantized(msgspec.Struct, frozen=True):
    """A float model and its int8 files. Accuracies on the test rows, in points of 100."""

    accuracy_float: float
    accuracy_int8: float
    accuracy_plain: float
    """Of int8 by TFLiteConverter alone."""
    bytes_float: int
    """Of the float .tflite."""
    bytes_int8: int


class Trained(msgspec.Struct, frozen=True):
    """What training made of one network by one seed; the networks lie beside it."""

    before: Size
    after: Size
    steps: int
    """Of the optimizer in all of pruning, between and after its rounds; the net from scratch had as many."""
    accuracy_scratch: float
    seconds: dict[str, float]


class Outcome(msgspec.Struct, frozen=True):
    """One network by one seed."""

    kind: str
    seed: int
    before: Size
    after: Size
    steps: int
    """Of the optimizer in all of pruning, between and after its rounds; the net from scratch had as many."""
    accuracy_scratch: float
    big: Quantized
    small: Quantized
    seconds: dict[str, float]
