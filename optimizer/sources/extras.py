"""Kinds of sources whose tools come with an extra, and where those tools exist."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable

from optimizer.sources.kinds import Kind
from optimizer.sources.specs import SourceError

_NEEDED: dict[Kind, tuple[str, ...]] = {
    "torch": ("torch", "litert_torch"),
    "onnx": ("onnx", "onnx2torch", "litert_torch"),
}
_WHEELS = {("linux", "x86_64"), ("darwin", "arm64")}
"""Systems for which Google publishes litert-converter."""


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def check_installed(
    kind: Kind,
    name: str,
    is_installed: Callable[[str], bool] = _is_installed,
    system: tuple[str, str] = (sys.platform, platform.machine()),
) -> None:
    """Raises SourceError that says what to install, or that it cannot be had on this system."""
    missing = [module for module in _NEEDED.get(kind, ()) if not is_installed(module)]
    if not missing:
        return
    if system not in _WHEELS:
        raise SourceError(
            f"{name} cannot be converted on {' '.join(system)}: its converter (litert-converter) exists for Linux on "
            "x86_64 and macOS on arm64 only; convert it to a float .tflite there, and give that"
        )
    raise SourceError(f"{name} needs {missing[0]}: pip install 'lepta[all,{kind}]', in an environment of its own")
