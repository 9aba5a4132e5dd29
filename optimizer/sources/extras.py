"""Kinds of sources whose tools come with an extra, and where those tools exist."""

from __future__ import annotations

import importlib.util
import platform
import sys

from optimizer.sources.kinds import Kind
from optimizer.sources.specs import SourceError

_NEEDED: dict[Kind, tuple[str, ...]] = {
    "torch": ("torch", "litert_torch"),
    "onnx": ("onnx", "onnx2torch", "litert_torch"),
}
_WHEELS = {("linux", "x86_64"), ("darwin", "arm64")}
"""Systems for which Google publishes litert-converter."""


def check_installed(kind: Kind, name: str) -> None:
    """Raises SourceError that says what to install, or that it cannot be had here."""
    missing = [module for module in _NEEDED.get(kind, ()) if importlib.util.find_spec(module) is None]
    if not missing:
        return
    if (sys.platform, platform.machine()) not in _WHEELS:
        raise SourceError(
            f"{name} cannot be converted on {sys.platform} {platform.machine()}: its converter (litert-converter) "
            "exists for Linux on x86_64 and macOS on arm64 only; convert it to a float .tflite there, and give that"
        )
    raise SourceError(f"{name} needs {missing[0]}: pip install 'lepta[all,{kind}]', in an environment of its own")
