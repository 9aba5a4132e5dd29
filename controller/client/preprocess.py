"""Files to the arrays that a model takes: pictures by the version's preprocessing, .npy, and JSON."""

from __future__ import annotations

from pathlib import Path

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.oip_models import TensorInfo
from controller import inputs
from controller.errors import UserError

MAX_BYTES = 64 * 1024 * 1024


def read_inputs(path: Path, infos: tuple[TensorInfo, ...], how: Preprocessing | None) -> dict[str, Array]:
    """The model's inputs from one file, each (rows, ...). Raises UserError where the file does not fit."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path} is not there" if not path.exists() else f"{path} is no file")
    if kind in inputs.PICTURES:
        return inputs.from_picture(path, infos, how, path)
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES // 2**20} MB", "use `lepta job run` for that much")
    if kind == ".npy":
        return inputs.from_npy(path, infos, path)
    if kind == ".json":
        return inputs.from_json(_text(path), infos, path)
    raise UserError(f"{path}: {kind or 'no'} files are not known", f"use {', '.join(inputs.PICTURES)}, .npy or .json")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
