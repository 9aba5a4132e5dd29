"""Names of the files by which passes hand over to each other."""

from __future__ import annotations

PARITY = "parity.npz"
ACCEPTANCE = "acceptance.npz"
OUTPUTS = "outputs.npz"
"""What the float model made of validation and test."""
MODEL = "model.tflite"
SOURCE = "model.keras"
DATA = "data.npz"
