"""Names of the files by which the steps of one run hand over to each other."""

from __future__ import annotations

PARITY = "parity.npz"
ACCEPTANCE = "acceptance.npz"
OUTPUTS = "outputs.npz"
"""What the float model made of validation and test."""
