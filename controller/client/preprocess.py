"""Files to the arrays that a model takes: pictures by the version's preprocessing, .npy, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agent.contract import pictures
from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.tensors import DTYPES
from controller.errors import UserError
from controller.oip import datatype
from controller.replies import TensorInfo

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MAX_BYTES = 64 * 1024 * 1024
_DTYPES = {datatype(dtype): dtype for dtype in DTYPES}


def image_to_array(path: Path | BinaryIO, how: Preprocessing, name: str = "") -> Array:
    """Resize to (height, width), take `channels`, invert if asked, then value * scale + offset.

    `name`: what to call it in errors. Values are 0 to 255 before scaling.
    Returns float32 of shape (1, height, width, channels).
    """
    try:
        return pictures.to_array(path, how, _FORMATS)
    except pictures.PictureError as error:
        raise UserError(f"{name or path} is no picture that can be read: {error}", "png and jpg are") from error


def read_inputs(path: Path, infos: tuple[TensorInfo, ...], how: Preprocessing | None) -> dict[str, Array]:
    """The model's inputs from one file, each (rows, ...). Raises UserError where the file does not fit."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path} is not there" if not path.exists() else f"{path} is no file")
    if kind not in PICTURES and path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES // 2**20} MB", "use `lepta job run` for that much")
    if kind in PICTURES:
        return {_only(infos).name: _fitted(_picture(path, infos, how), _only(infos), path)}
    if kind == ".npy":
        return {_only(infos).name: _fitted(_npy(path), _only(infos), path)}
    if kind == ".json":
        return _from_json(path, infos)
    raise UserError(f"{path}: {kind or 'no'} files are not known", f"use {', '.join(PICTURES)}, .npy or .json")


def _picture(path: Path, infos: tuple[TensorInfo, ...], how: Preprocessing | None) -> Array:
    if how is None:
        raise UserError(
            "this version does not say how a picture becomes its input",
            "deploy it with --preprocessing FILE.json, or send an .npy file",
        )
    array = image_to_array(path, how)
    wanted = _only(infos).shape[1:]
    # A model may take the same pixels in another shape, such as (64,) for 8 x 8.
    return array.reshape(1, *wanted) if array[0].size == np.prod(wanted) else array


def _npy(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no .npy file: {error}", "write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} holds several arrays", "save one with numpy.save")
    return array


def _from_json(path: Path, infos: tuple[TensorInfo, ...]) -> dict[str, Array]:
    """An array, `{"name": array, ...}`, or a request of the Open Inference Protocol."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        named = {
            str(item.get("name")): _protocol_array(item, path) for item in value["inputs"] if isinstance(item, dict)
        }
    elif isinstance(value, dict):
        named = {name: _array(content, path) for name, content in value.items()}
    else:
        named = {_only(infos).name: _array(value, path)}
    return _by_name(named, infos, path)


def _by_name(named: Mapping[str, Array], infos: tuple[TensorInfo, ...], path: Path) -> dict[str, Array]:
    wanted = {info.name for info in infos}
    if set(named) != wanted:
        raise UserError(f"{path} names the inputs {_listed(named)}; the model takes {_listed(wanted)}")
    return {info.name: _fitted(named[info.name], info, path) for info in infos}


def _protocol_array(item: Mapping[str, Any], path: Path) -> Array:
    array = _array(item.get("data"), path)
    try:
        return array.reshape(item["shape"]).astype(_DTYPES[item.get("datatype", "FP32")])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: input {item.get('name')!r}: {error}") from error


def _array(value: object, path: Path) -> Array:
    try:
        return np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path} holds no array of numbers: {error}") from error


def _fitted(array: Array, info: TensorInfo, path: Path) -> Array:
    """`array` with a rows axis in front, as float32 unless it is of the model's own type already."""
    row = info.shape[1:]
    if array.shape == row:
        array = array[np.newaxis]
    if array.shape[1:] != row or array.dtype.kind not in "fiub":
        shape = ", ".join(map(str, row))
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}; input {info.name!r} takes rows of [{shape}]")
    own = _DTYPES.get(info.datatype)
    return array if array.dtype.name == own else array.astype(np.float32)


def _only(infos: tuple[TensorInfo, ...]) -> TensorInfo:
    if len(infos) != 1:
        names = _listed(info.name for info in infos)
        raise UserError(f"the model takes {len(infos)} inputs ({names})", "send a .json file that names them")
    return infos[0]


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
