"""Pictures, .npy and JSON to the arrays that a model takes, wherever they come from.

Everywhere `called` is how errors name what was given, such as a file's path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agent.contract import pictures
from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.oip_models import TensorInfo
from agent.contract.tensors import DTYPES
from controller.errors import UserError
from controller.oip import datatype

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# Pillow reads many more, some by other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_DTYPES = {datatype(dtype): dtype for dtype in DTYPES}


def image_to_array(picture: Path | BinaryIO, how: Preprocessing, called: object = None) -> Array:
    """As `pictures.to_array`, for the kinds above. Raises UserError."""
    try:
        return pictures.to_array(picture, how, _FORMATS)
    except pictures.PictureError as error:
        raise UserError(f"{called or picture} is no picture that can be read: {error}", "png and jpg are") from error


def from_picture(
    picture: Path | BinaryIO, infos: tuple[TensorInfo, ...], how: Preprocessing | None, called: object
) -> dict[str, Array]:
    """The only input of a model, one row, as the version's preprocessing says."""
    if how is None:
        raise UserError(
            "this version does not say how a picture becomes its input",
            "deploy it with --preprocessing FILE.json, or send an .npy file",
        )
    info = only(infos)
    array = image_to_array(picture, how, called)
    wanted = info.shape[1:]
    # A model may take the same pixels in another shape, such as (64,) for 8 x 8.
    fitting = array.reshape(1, *wanted) if array[0].size == np.prod(wanted) else array
    return {info.name: _fitted(fitting, info, called)}


def from_npy(file: Path | BinaryIO, infos: tuple[TensorInfo, ...], called: object) -> dict[str, Array]:
    """The only input of a model, any number of rows."""
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{called} is no .npy file: {error}", "write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{called} holds several arrays", "save one with numpy.save")
    return {only(infos).name: _fitted(array, only(infos), called)}


def from_json(text: str | bytes, infos: tuple[TensorInfo, ...], called: object) -> dict[str, Array]:
    """An array, `{"name": array, ...}`, either of these as `{"inputs": ...}`, or a request of the Open Inference
    Protocol. An array alone is for a model with one input."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{called} is no JSON: {error}") from error
    inner = value.get("inputs") if isinstance(value, dict) else None
    if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
        return _by_name({str(i.get("name")): _protocol_array(i, called) for i in inner}, infos, called)
    if inner is not None and "inputs" not in _names(infos):
        value = inner
    if isinstance(value, dict):
        return _by_name({name: _array(content, called) for name, content in value.items()}, infos, called)
    return _by_name({only(infos).name: _array(value, called)}, infos, called)


def only(infos: tuple[TensorInfo, ...]) -> TensorInfo:
    """A model's one input; raises UserError where it takes several."""
    if len(infos) != 1:
        names = _listed(info.name for info in infos)
        raise UserError(f"the model takes {len(infos)} inputs ({names})", "send JSON that names them")
    return infos[0]


def _by_name(named: Mapping[str, Array], infos: tuple[TensorInfo, ...], called: object) -> dict[str, Array]:
    if set(named) != _names(infos):
        raise UserError(f"{called} names the inputs {_listed(named)}; the model takes {_listed(_names(infos))}")
    return {info.name: _fitted(named[info.name], info, called) for info in infos}


def _protocol_array(item: Mapping[str, Any], called: object) -> Array:
    array = _array(item.get("data"), called)
    try:
        return array.reshape(item["shape"]).astype(_DTYPES[item.get("datatype", "FP32")])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{called}: input {item.get('name')!r}: {error}") from error


def _array(value: object, called: object) -> Array:
    try:
        return np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{called} holds no array of numbers: {error}") from error


def _fitted(array: Array, info: TensorInfo, called: object) -> Array:
    """`array` with a rows axis in front, as float32 unless it is of the model's own type already."""
    row = info.shape[1:]
    if array.shape == row:
        array = array[np.newaxis]
    if array.shape[1:] != row or array.dtype.kind not in "fiub":
        shape = ", ".join(map(str, row))
        raise UserError(
            f"{called} holds {array.dtype} {list(array.shape)}; input {info.name!r} takes rows of [{shape}]"
        )
    own = _DTYPES.get(info.datatype)
    return array if array.dtype.name == own else array.astype(np.float32)


def _names(infos: tuple[TensorInfo, ...]) -> set[str]:
    return {info.name for info in infos}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
