"""Recipes as the controller and the command line see them: the optimizer's own by name, or a user's as text.

The optimizer is never imported here; its recipes are files of its package.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

from controller.errors import NotFound, UserError

_NAME = re.compile("[a-z0-9][a-z0-9._-]*")
_SHOW = "lepta recipe ls"


def names() -> tuple[str, ...]:
    """The recipes that come with Lepta."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def text_of(name: str) -> str:
    """A builtin recipe as TOML; raises NotFound naming those that there are."""
    if name not in names():
        raise NotFound(f"no recipe is called {name[:80]!r}; there are {', '.join(names())}", _SHOW)
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def is_name(recipe: str) -> bool:
    """Whether it is a name, and not the text of a recipe."""
    return _NAME.fullmatch(recipe) is not None


def check(recipe: str, most_bytes: int) -> str:
    """A recipe that was sent: a builtin's name, the text of one, or empty. Returns it; raises UserError or NotFound.

    The optimizer reads it closer when the run begins.
    """
    if not recipe:
        return recipe
    if is_name(recipe):
        text_of(recipe)
        return recipe
    if len(recipe.encode()) > most_bytes:
        raise UserError(f"the recipe has more than {most_bytes} bytes", _SHOW)
    try:
        tables = tomllib.loads(recipe)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the recipe is not TOML: {error}", "lepta recipe show default") from error
    _check_no_files(tables)
    return recipe


def _check_no_files(tables: dict[str, Any]) -> None:
    """A text that came over the network must not name files of this machine."""
    distill = tables.get("distill")
    if isinstance(distill, dict) and distill.get("student"):
        raise UserError(
            "distill.student names a file, which the controller does not have",
            "run it where the file is: lepta optimize, then lepta model push",
        )


def from_option(option: str | None) -> str:
    """What `--recipe` names: a builtin by name, or a file's text. Raises UserError or NotFound."""
    if not option:
        return ""
    path = Path(option)
    if path.suffix != ".toml":
        text_of(option)
        return option
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} cannot be read: {error}", _SHOW) from error


def _folder() -> Path:
    found = importlib.util.find_spec("optimizer")
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places or ()), "")) / "recipes"
