"""Which test files need more than the base install: found by what they import, themselves and through `tests`."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

_BEYOND = frozenset(
    "PIL alembic controller fastapi httpx iotcore keras optimizer pydantic rich sklearn sqlalchemy sqlmodel starlette "
    "tensorflow typer uvicorn".split()
)

# Programs that a test starts as processes, by the text of their command.
_STARTED = re.compile(r"\b(?:controller|optimizer)\.(?:cli|simulate|__main__)\b")


def beyond_the_base_install(path: Path, root: Path) -> bool:
    """Does the file, or a module of `tests` that it imports, import something that the base install lacks?"""
    return _reaches(path, root, frozenset())


def _reaches(path: Path, root: Path, seen: frozenset[Path]) -> bool:
    if path in seen or not path.is_file():
        return False
    names = imported_names(path)
    if any(name.split(".")[0] in _BEYOND for name in names):
        return True
    own = [candidate for name in names if name.startswith("tests.") for candidate in _files(name, root)]
    return any(_reaches(candidate, root, seen | {path}) for candidate in own)


@functools.cache
def imported_names(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports (`from a import b` as `a` and `a.b`) and every program that it starts."""
    return frozenset(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(tree: ast.Module) -> Iterator[str]:
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Constant) and isinstance(statement.value, str):
            yield from _STARTED.findall(statement.value)
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


def _files(name: str, root: Path) -> tuple[Path, ...]:
    place = root.joinpath(*name.split("."))
    return (place.with_suffix(".py"), place / "__init__.py")
