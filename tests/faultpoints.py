"""Every named fault point of the program, found in its source: a new one cannot be forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from agent import swap

ROOT = Path(__file__).parents[1]
CHILDREN = frozenset({"worker.invoke", "zygote.fork"})
"""They end a child of the agent and not the agent."""
SWAP = frozenset(f"swap.{action.__name__}" for action in get_args(swap.Action))
"""Before each action of a swap; `agent.slot` makes their names from the actions'."""


def of(package: str) -> set[str]:
    """The points in a package's code."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for argument in _faults(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(argument, ast.Constant):
                found.add(str(argument.value))
            elif path.relative_to(ROOT).as_posix() == "agent/slot.py":
                found |= SWAP
            else:
                raise ValueError(f"{path}:{argument.lineno}: a fault point's name is a plain string")
    return found


def of_an_update() -> list[str]:
    """Those that an agent may come by on its way from one version to the next."""
    return sorted(point for point in of("agent") - CHILDREN if not point.startswith("join."))


def _faults(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault":
            yield node.args[0]
