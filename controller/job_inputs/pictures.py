"""An archive of pictures: decoded one after another, as `lepta infer` would for the same preprocessing."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from controller.errors import UserError
from controller.inputs import PICTURES, image_to_array
from controller.job_inputs.source import Layout
from controller.job_inputs.spool import Spool
from controller.job_inputs.wanted import Wanted

_MOST_BYTES = 100 * 1024 * 1024
"""Of one picture's file."""
_HINT = f"pictures are {', '.join(PICTURES)}"


def lay_out(path: Path, wanted: Wanted, spool: Spool) -> Layout:
    """A row a picture: in the order of names (zip), or as they come (tar). Its id is its name in the archive; its label
    is the folder that it lies in, where that is one of the model's classes."""
    spec, how = wanted.inputs[0], wanted.preprocessing
    if len(wanted.inputs) != 1:
        raise UserError(f"the model takes {len(wanted.inputs)} inputs, and a picture is one", "send an .npz")
    if how is None:
        raise UserError(
            "this version does not say how a picture becomes its input",
            "deploy it with --preprocessing FILE.json, or send arrays",
        )
    if how.height * how.width * how.channels != int(np.prod(spec.shape)):
        raise UserError(
            f"pictures of {how.height} x {how.width} x {how.channels} do not fit input {spec.name!r} of shape "
            f"{list(spec.shape)}",
            "correct the version's preprocessing",
        )
    numbers = {name: number for number, name in enumerate(wanted.classes)}
    names, labels = [], []
    with spool.column("float32", spec.shape) as column, _members(path) as members:
        for name, content in members:
            column.append(image_to_array(io.BytesIO(content), how, name))
            names.append(name)
            labels.append(numbers.get(PurePosixPath(name).parent.name, -1))
    if not names:
        raise UserError("the archive holds no pictures", _HINT)
    known = spool.whole(np.array(labels, np.int64)) if max(labels) >= 0 else None
    return Layout(len(names), {spec.name: column.stored("float32")}, known, spool.whole(np.array(names, np.str_)))


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[str, bytes]]]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _zipped(archive)
        else:
            with tarfile.open(path, "r|*") as tar:
                yield _tarred(tar)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"the archive cannot be read: {error}", "a .zip or .tar with pictures") from error


def _zipped(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for name in sorted(member.filename for member in archive.infolist() if not member.is_dir()):
        if _is_picture(name):
            _check_size(name, archive.getinfo(name).file_size)
            with archive.open(name) as file:
                yield name, file.read(_MOST_BYTES)


def _tarred(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        if member.isfile() and _is_picture(member.name):
            _check_size(member.name, member.size)
            file = archive.extractfile(member)
            if file is not None:
                yield member.name.removeprefix("./"), file.read(_MOST_BYTES)


def _is_picture(name: str) -> bool:
    """Hidden files are passed over; what else is no picture ends the job, for a row must not be lost in silence."""
    path = PurePosixPath(name)
    if any(part.startswith(".") and part != "." for part in path.parts) or "__MACOSX" in path.parts:
        return False
    if path.suffix.lower() not in PICTURES:
        raise UserError(f"the archive holds {name[:100]!r}, which is no picture", _HINT)
    return True


def _check_size(name: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise UserError(f"{name[:100]} has {size:,} bytes; at most {_MOST_BYTES:,} are read")
