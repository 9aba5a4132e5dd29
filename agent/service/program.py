"""What a service must be able to reach to run this program: the command, and where its parts lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import agent


class Program(NamedTuple):
    command: tuple[str, ...]
    folders: tuple[str, ...]
    """The interpreter, its library, and ours, by every name under which they are reached."""


def installed() -> Program:
    """This very program. It may lie in a virtual environment in somebody's home (uv tool, pipx)."""
    interpreter = Path(sys.executable)
    ours = Path(agent.__file__).parents[1]
    script = interpreter.parent / "lepta-agent"
    command = (str(script),) if script.is_file() else (str(interpreter), "-m", "agent.cli")
    reached = [Path(sys.prefix), Path(sys.base_prefix), ours, *_hops(interpreter)]
    named = {Path(os.path.abspath(path)) for path in reached}
    return Program(command, minimal(str(path) for path in named | {path.resolve() for path in named}))


def minimal(folders: Iterable[str]) -> tuple[str, ...]:
    """Without those that lie below another one."""
    kept: list[Path] = []
    for folder in sorted({Path(folder) for folder in folders}):
        if not any(folder.is_relative_to(above) for above in kept):
            kept.append(folder)
    return tuple(map(str, kept))


def _hops(link: Path) -> list[Path]:
    """The prefixes that a chain of links to the interpreter passes through (venv -> uv's -> the real one)."""
    passed = []
    for _ in range(10):
        if not link.is_symlink():
            break
        link = link.parent / os.readlink(link)
        passed.append(link.parent.parent)
    return passed
