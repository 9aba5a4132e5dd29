"""What every command needs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.commands.screen import Screen, open_screen
from controller.errors import UserError

if TYPE_CHECKING:
    from agent.contract.manifest import Preprocessing
    from controller.client.rest import Client

_MOST_LABELS = 100_000


def connect() -> Client:
    """A client of the controller that the environment or the data folder names."""
    from controller.client.locate import locate
    from controller.client.rest import Client

    return Client(locate())


def screen() -> Screen:
    return open_screen()


def beside(program: str) -> str:
    """How this user calls a program that was installed with this one: by its name where PATH finds it."""
    return program if shutil.which(program) else str(Path(sys.executable).with_name(program))


def labels_of(text: str | None) -> list[str]:
    """Names of the classes: a file with one per line, or a list with commas."""
    if not text:
        return []
    if "," in text or not Path(text).exists():
        labels = [part.strip() for part in text.split(",")]
    else:
        labels = [line.strip() for line in _text(Path(text)).splitlines() if line.strip()]
    if len(labels) < 2 or not all(labels) or len(labels) > _MOST_LABELS:
        raise UserError(
            f"labels {text[:60]!r} name {len(labels)} classes", "give a,b,c or a file with one name per line"
        )
    return labels


def preprocessing_of(path: Path | None) -> Preprocessing | None:
    """How images become the model's input, from a JSON file."""
    import msgspec

    from agent.contract.manifest import Preprocessing

    if path is None:
        return None
    try:
        return msgspec.json.decode(_text(path), type=Preprocessing, strict=True)
    except (msgspec.DecodeError, ValueError) as error:
        fields = ", ".join(Preprocessing.__struct_fields__)
        raise UserError(f"{path} is no preprocessing: {error}", f"a JSON object with {fields}") from error


def model_name(path: Path) -> str:
    """A usable name from a file's name."""
    return re.sub("[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:63] or "model"


def as_mapping(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    """As JSON objects have it."""
    if preprocessing is None:
        return None
    return {name: getattr(preprocessing, name) for name in preprocessing.__struct_fields__}


def write_json(path: Path, value: object) -> None:
    """Write a file for people and programs in one step."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def new_folder(path: Path) -> Path:
    """Make `path` if it is not there; raises UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}", "name another folder") from error
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
