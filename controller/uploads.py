"""A first look at what users upload: what is plainly no model or no data is refused before anything is stored of it.

What a file is, is told by its content; its name gets the ending by which the optimizer goes. The optimizer looks
closer, in a process of its own; this look reads first bytes and names inside archives, and nothing else.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from controller.errors import UserError

_KERAS = {"config.json", "metadata.json", "model.weights.h5"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
_MOST_MEMBERS = 1_000_000
_MODELS = "a model is a .keras file, a SavedModel's folder or .zip, .tflite, .h5 (with --trust), .pt2 or .onnx"
_DATA = (
    "data are an .npz with arrays train/x, train/y, validation/x, ..., a folder of .npy files or pictures, or a .npy"
)


def check_model(path: Path, name: str, *, trust: bool) -> str:
    """The model's name with the ending that its content has; raise UserError for what could be no model, or, without
    `trust`, for one that may run code when it is loaded. `name` is what the user calls it."""
    ending = _model_ending(path, name)
    if ending == ".h5" and not trust:
        raise UserError(
            f"{name} is a legacy HDF5 model, which can run code when it is loaded",
            "save it with Keras 3: model.save('x.keras'); or, if you know where it comes from, --trust",
        )
    return _named(name, (ending,), "model")


def check_data(path: Path, name: str) -> str:
    """The data's name with the ending that its content has; raise UserError for what could be no data."""
    if _first(path, len(_NPY)) == _NPY:
        return _named(name, (".npy",), "data")
    members = _members(path, name, "data", _DATA)
    kinds = {PurePosixPath(member).suffix.lower() for member in members}
    if members and kinds == {".npy"}:
        return _named(name, (".npz", ".zip"), "data")
    if kinds & (_PICTURES | {".npy"}):
        return _named(name, (".zip",), "data")
    found = ", ".join(sorted(members)[:3]) or "nothing"
    raise UserError(f"{name} holds no arrays and no pictures: it holds {found}", _DATA)


def _model_ending(path: Path, name: str) -> str:
    first = _first(path, 8)
    if first[4:8] == b"TFL3":
        return ".tflite"
    if first == _HDF5:
        return ".h5"
    # A protobuf has no mark of its own: field 1, the version of the format, comes first.
    if name.lower().endswith(".onnx") and first[:1] == b"\x08":
        return ".onnx"
    members = _members(path, name, "a model", _MODELS)
    if members >= _KERAS:
        return ".keras"
    if any(PurePosixPath(member).name == "saved_model.pb" for member in members):
        return ".zip"
    if any(PurePosixPath(member).name in ("archive_format", "serialized_exported_program.json") for member in members):
        return ".pt2"
    if members & _KERAS:
        missing = ", ".join(sorted(_KERAS - members))
        raise UserError(f"{name} is not a Keras 3 model: it has no {missing}", "save it with model.save('x.keras')")
    found = ", ".join(sorted(members)[:3]) or "nothing"
    raise UserError(f"{name} is no model: it holds {found}", _MODELS)


def _members(path: Path, name: str, what: str, hint: str) -> set[str]:
    """Names of the files inside an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {member.filename for member in archive.infolist() if not member.is_dir()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{name} is not {what}: {error}", hint) from error
    if len(names) > _MOST_MEMBERS:
        raise UserError(f"{name} holds more than {_MOST_MEMBERS:,} files", hint)
    outside = sorted(inner for inner in names if inner.startswith("/") or ".." in PurePosixPath(inner).parts)
    if outside:
        raise UserError(f"{name} holds a file outside of itself: {outside[0][:100]}", hint)
    return names


def _named(name: str, endings: tuple[str, ...], otherwise: str) -> str:
    """A plain file name with one of `endings`, the first where it has none of them."""
    plain = Path(name).name if Path(name).name not in ("", ".", "..") else otherwise
    return plain if plain.lower().endswith(endings) else plain + endings[0]


def _first(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
