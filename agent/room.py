"""PURE: does a new version fit into memory beside the one that serves, or only in its place?"""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.contract.manifest import Manifest

Place = Literal["beside", "instead", "none"]

_WORKER_MB = 12.0
"""What a worker takes with a tiny model (measured: about 10 MB)."""
_PER_FILE = 3.0
"""Loaded and warm, a model takes up to three times its file (measured on MobileNetV2)."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """In MB. `serving_mb`: what comes back when the serving worker leaves; 0 where none serves."""

    free_mb: float
    serving_mb: float
    reserve_mb: float
    """Left to everybody else."""


def needed_mb(manifest: Manifest) -> float:
    """What its worker will take: the manifest's limit, since more is refused anyway; else by the size of the file."""
    return manifest.limits.memory_mb or estimate_mb(manifest.files["model"].size)


def estimate_mb(file_bytes: int) -> float:
    return _WORKER_MB + _PER_FILE * file_bytes / 2**20


def choose(memory: Memory, needed: float) -> Place:
    """Beside the serving worker if both fit; instead of it if only one does."""
    free = memory.free_mb - memory.reserve_mb
    if needed <= free:
        return "beside"
    if memory.serving_mb > 0 and needed <= free + memory.serving_mb:
        return "instead"
    return "none"
