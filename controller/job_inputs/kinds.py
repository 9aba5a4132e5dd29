"""What kind of file an input is, told by its content; and its way into rows."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from controller.errors import UserError
from controller.job_inputs import arrays, csv_file, parquet_file, pictures
from controller.job_inputs.source import Layout
from controller.job_inputs.spool import Spool
from controller.job_inputs.wanted import Wanted

KINDS = "an input is .npy, .npz, .csv, .parquet, or a folder, .zip or .tar of pictures"
LayOut = Callable[[Path, Wanted, Spool], Layout]


def lay_out(path: Path, wanted: Wanted, folder: Path, limit: int) -> Layout:
    """Check an input against its model, and lay its rows out; raises UserError where it does not fit.

    What cannot be read by place is written into `folder`, at most `limit` bytes.
    """
    return _way(path)(path, wanted, Spool(folder, limit))


def at_once(path: Path) -> bool:
    """Can it be laid out without unpacking anything? Then a look at some headers is enough."""
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            return all(
                member.compress_type == zipfile.ZIP_STORED and member.filename.endswith(".npy")
                for member in archive.infolist()
            )
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _way(path: Path) -> LayOut:
    with path.open("rb") as file:
        first = file.read(6)
    if not first:
        raise UserError("the input is empty", KINDS)
    if first == b"\x93NUMPY":
        return arrays.lay_out
    if first[:4] == b"PAR1":
        return parquet_file.lay_out
    if first[:2] == b"PK":
        return _of_zip(path)
    return pictures.lay_out if tarfile.is_tarfile(path) else csv_file.lay_out


def _of_zip(path: Path) -> LayOut:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"the archive cannot be read: {error}", KINDS) from error
    return arrays.lay_out if names and all(name.endswith(".npy") for name in names) else pictures.lay_out
