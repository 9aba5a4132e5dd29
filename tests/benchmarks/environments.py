"""Environments of their own for what we are compared with: they share no package with us, and are installed once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class EnvironmentMissing(RuntimeError):
    """The environment could not be made; says what to do."""


def python(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with `packages`, made by uv in the user's cache where it is not there yet."""
    told = hashlib.sha256("\n".join((sys.version, *packages)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "lepta-benchmarks" / f"{name}-{told}"
    if not (folder / "complete").exists():
        _make(folder, packages)
    return folder / "bin" / "python"


def _make(folder: Path, wanted: Sequence[str]) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise EnvironmentMissing("uv is needed to install what we are compared with: pip install uv")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        ["venv", "-q", "--python", sys.executable, str(folder)],
        ["pip", "install", "-q", "--python", str(folder / "bin" / "python"), "--compile-bytecode", *wanted],
    ):
        # Elsewhere than in our project: its versions are not theirs.
        ended = subprocess.run([uv, *command], cwd=folder.parent, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise EnvironmentMissing(f"uv {command[0]} failed:\n{ended.stderr[-2000:]}")
    (folder / "complete").touch()
