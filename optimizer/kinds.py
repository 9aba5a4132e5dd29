"""What each kind of source is opened, inspected and quantized by."""

from __future__ import annotations

from typing import NamedTuple

from optimizer.work_files import MODEL, SAVED_MODEL, SOURCE


class Opened(NamedTuple):
    """By the kind that opening made of a source."""

    file: str
    inspect: str
    quantize: str
    trainable: bool


OPEN = {
    "keras": "open-keras",
    "h5": "open-h5",
    "saved-model": "open-saved-model",
    "tflite": "open-tflite",
    "torch": "open-torch",
    "onnx": "open-onnx",
}
OPENED = {
    "keras": Opened(SOURCE, "inspect", "quantize", True),
    "saved-model": Opened(SAVED_MODEL, "inspect", "quantize-saved-model", False),
    "tflite": Opened(MODEL, "inspect-tflite", "quantize-tflite", False),
}
