"""What this device is: one function per fact. An override from the configuration wins and is named."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from firmware_profiles.profile import Facts

# Interpreters by import name, best first.
_RUNTIMES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")


class FactsError(ValueError):
    """An override that is not a fact or has a wrong value."""


def machine() -> str:
    return platform.machine()


def system() -> str:
    return platform.system().lower()


def board(model: Path = _DEVICE_TREE_MODEL) -> str:
    with contextlib.suppress(OSError):
        return model.read_bytes().rstrip(b"\0\n").decode(errors="replace")
    return ""


def cpus() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> int:
    return int(psutil.virtual_memory().total // (1 << 20))


def disk_mb(data: Path) -> int:
    there = next(path for path in (data, *data.parents) if path.exists())
    return shutil.disk_usage(there).free // (1 << 20)


def accelerators() -> tuple[str, ...]:
    """Accelerators this host fronts, as far as their drivers show."""
    found = []
    if Path("/dev/nvidia0").exists() or Path("/dev/dri/renderD128").exists():
        found.append("gpu")
    if Path("/dev/ethosu0").exists():
        found.append("ethos-u55")
    return tuple(found)


def runtimes(forced: str = "") -> tuple[str, ...]:
    """Installed interpreters, best first; only `forced` if that is named."""
    installed = tuple(name for name, module in _RUNTIMES.items() if importlib.util.find_spec(module) is not None)
    return tuple(name for name in installed if not forced or name == forced)


def runtime_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed version of each, by its distribution's name; "" where that is not known."""
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def python() -> str:
    return platform.python_version()


def gather(
    data: Path,
    *,
    runtime: str = "",
    overrides: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Facts:
    """All facts. Raises FactsError for an override that names no fact or has a wrong type."""
    measured: dict[str, Callable[[], Any]] = {
        "machine": machine,
        "system": system,
        "board": board,
        "cpus": cpus,
        "memory_mb": memory_mb,
        "disk_mb": lambda: disk_mb(data),
        "accelerators": accelerators,
        "runtimes": lambda: runtimes(runtime),
        "python": python,
    }
    overrides = dict(overrides or {})
    unknown = sorted(set(overrides) - set(measured))
    if unknown:
        raise FactsError(f"[facts] {', '.join(unknown)}: no such fact; allowed: {', '.join(measured)}")
    values = {name: overrides[name] if name in overrides else measure() for name, measure in measured.items()}
    values |= {"labels": dict(labels or {}), "overridden": tuple(sorted(overrides))}
    try:
        return msgspec.convert(values, Facts)
    except msgspec.ValidationError as error:
        raise FactsError(f"[facts] {error}") from error
