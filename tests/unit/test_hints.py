"""What errors and help texts tell the user to type."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from controller.commands.root import app

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"\blepta ([a-z]+)\b(?: ([a-z]+)\b)?")


def commands() -> dict[str, set[str]]:
    """Every command with its subcommands."""
    root = typer.main.get_command(app)
    return {name: set(getattr(command, "commands", {})) for name, command in getattr(root, "commands").items()}  # noqa: B009


def told() -> Iterator[tuple[str, str, str]]:
    for folder in ("agent", "controller", "optimizer", "firmware_profiles"):
        for path in (ROOT / folder).rglob("*.py"):
            for element in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(element, ast.Constant) and isinstance(element.value, str):
                    for found in COMMAND.finditer(element.value):
                        yield f"{path.relative_to(ROOT)}:{element.lineno}", found[1], found[2] or ""


def test_every_command_that_a_text_names_exists() -> None:
    known = commands()
    seen = list(told())
    assert len(seen) > 30
    for where, command, sub in seen:
        assert command in known, f"{where}: there is no `lepta {command}`"
        if known[command] and sub:
            assert sub in known[command], f"{where}: there is no `lepta {command} {sub}`"
