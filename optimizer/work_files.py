"""Names of the files by which passes hand over to each other."""

from __future__ import annotations

PARITY = "parity.npz"
ACCEPTANCE = "acceptance.npz"
OUTPUTS = "outputs.npz"
"""What the float model made of validation and test."""
MODEL = "model.tflite"
FLOAT = "float.tflite"
"""The float graph that an int8 one was made from, beside it."""
ERRORS = "errors.json"
SOURCE = "model.keras"
DATA = "data.npz"
SAVED_MODEL = "saved_model"
