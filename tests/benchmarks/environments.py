"""Environments of their own for what Lepta is measured beside: their packages share nothing with ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_INSTALL_S = 300.0


class NotHereError(RuntimeError):
    """It cannot be had on this machine; says why."""


def environment(folder: Path, variable: str, file: str, packages: Sequence[str], python: str) -> Path:
    """The environment that `variable` names, the one made in `folder` before, or a new one there.

    `file` is in it once it has what it should. Raises NotHereError.
    """
    given = os.environ.get(variable)
    place = Path(given) if given else folder
    if (place / file).exists():
        return place
    if given:
        raise NotHereError(f"{variable} names an environment without {file}")
    uv = shutil.which("uv")
    if uv is None:
        raise NotHereError("uv is not on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    _run([uv, "venv", "-q", "--clear", "--python", python, str(folder)], folder)
    _run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *packages], folder)
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    """In `folder`, where our own constraints do not count."""
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotHereError(f"installing it took more than {_INSTALL_S:.0f} s") from error
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split())
        raise NotHereError(f"it could not be installed: {said[:200]}")
