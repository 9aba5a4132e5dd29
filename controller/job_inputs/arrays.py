"""`.npy` and `.npz`: read where they lie; what is compressed or in Fortran's order is laid out anew, piece by piece."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from controller.errors import UserError
from controller.job_inputs.source import Array, Layout, Stored
from controller.job_inputs.spool import Spool
from controller.job_inputs.wanted import IDS, LABELS, Wanted, check_shape, class_numbers, same_rows, sent_as

_ALIAS = "x"
_PIECE = 4 * 1024 * 1024
_LOCAL_HEADER = 30


@dataclass(frozen=True)
class _Found:
    """An array in the file. `offset`: where its bytes lie, None where they have to be unpacked from `member`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int | None
    member: str = ""


def lay_out(path: Path, wanted: Wanted, spool: Spool) -> Layout:
    """Raises UserError unless the arrays fit the model: named inputs, or `x` for the only one."""
    with path.open("rb") as file:
        try:
            found = _npy(file) if file.read(6) == b"\x93NUMPY" else _npz(file)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise UserError(f"the input is neither .npy nor .npz: {error}", "write it with numpy.savez") from error
        return _fitting(file, found, wanted, spool)


def _fitting(file: IO[bytes], found: dict[str, _Found], wanted: Wanted, spool: Spool) -> Layout:
    names = [spec.name for spec in wanted.inputs]
    if len(names) == 1 and names[0] not in found and _ALIAS in found:
        found[names[0]] = found.pop(_ALIAS)
    missing = [name for name in names if name not in found]
    if missing:
        there = ", ".join(sorted(found.keys() - {LABELS, IDS})) or "none"
        raise UserError(
            f"the input has no array called {', '.join(missing)}; it has {there}",
            f"write it with numpy.savez(FILE, {', '.join(f'{n}=...' for n in names)}, labels=...)",
        )
    types: dict[str, str] = {}
    for spec in wanted.inputs:
        check_shape(spec, found[spec.name].shape)
        types[spec.name] = sent_as(spec, found[spec.name].dtype)
    beside = {name: found[name] for name in (LABELS, IDS) if name in found}
    for name, array in beside.items():
        if len(array.shape) != 1 or array.dtype.kind == "O":
            raise UserError(f"{name} must have one value per row, it is {array.dtype} {list(array.shape)}")
    rows = same_rows({name: found[name].shape[0] for name in (*names, *beside)})
    inputs = {name: _stored(file, found[name], spool, types[name]) for name in names}
    labels = None
    if LABELS in beside:
        labels = spool.whole(class_numbers(_read(file, beside[LABELS], spool), wanted.classes))
    ids = _stored(file, beside[IDS], spool, beside[IDS].dtype.name) if IDS in beside else None
    return Layout(rows, inputs, labels, ids)


def _npy(file: IO[bytes]) -> dict[str, _Found]:
    file.seek(0)
    dtype, shape, fortran = _header(file)
    return {_ALIAS: _Found(dtype, shape, fortran, file.tell())}


def _npz(file: IO[bytes]) -> dict[str, _Found]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"it holds {member.filename[:80]!r}, which is no array")
            with archive.open(member) as inner:
                dtype, shape, fortran = _header(inner)
                offset = _place(file, member) + inner.tell() if member.compress_type == zipfile.ZIP_STORED else None
            name = member.filename.removesuffix(".npy")
            found[name] = _Found(dtype, shape, fortran, offset, member.filename)
    return found


def _place(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose lengths may differ from the directory's."""
    back = file.tell()
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    file.seek(back)
    lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return member.header_offset + _LOCAL_HEADER + sum(lengths)


def _header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return dtype, shape, fortran


def _stored(file: IO[bytes], found: _Found, spool: Spool, as_dtype: str) -> Stored:
    straight = not found.fortran or len(found.shape) < 2
    if found.offset is not None and straight:
        _check_whole(file, found)
        return Stored("", found.offset, found.dtype.str, found.shape[1:], as_dtype)
    if straight:
        return _unpacked(file, found, spool, as_dtype)
    # A row's values lie far apart: what is not in C order is read as a whole, once.
    return spool.whole(np.ascontiguousarray(_read(file, found, spool)), as_dtype)


def _check_whole(file: IO[bytes], found: _Found) -> None:
    assert found.offset is not None
    missing = found.offset + found.dtype.itemsize * math.prod(found.shape) - file.seek(0, 2)
    if missing > 0:
        raise UserError(f"the input is cut short: {missing:,} bytes of its array are missing", "write it again")


def _unpacked(file: IO[bytes], found: _Found, spool: Spool, as_dtype: str) -> Stored:
    width = found.dtype.itemsize * math.prod(found.shape[1:])
    step = max(1, _PIECE // max(1, width))
    with zipfile.ZipFile(file) as archive, archive.open(found.member) as inner:
        _header(inner)
        with spool.column(found.dtype.str, found.shape[1:]) as column:
            for first in range(0, found.shape[0], step):
                count = min(step, found.shape[0] - first)
                column.append(_piece(inner, found, count, width).reshape(count, *found.shape[1:]))
    return column.stored(as_dtype)


def _piece(inner: IO[bytes], found: _Found, count: int, width: int) -> Array:
    try:
        content = inner.read(count * width)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UserError(f"the array {found.member} is damaged: {error}", "write it again") from error
    if len(content) != count * width:
        raise UserError(f"the array {found.member} is cut short", "write it again")
    return np.frombuffer(content, found.dtype)


def _read(file: IO[bytes], found: _Found, spool: Spool) -> Array:
    """The whole array: for labels, and for what lies in Fortran's order."""
    size = found.dtype.itemsize * math.prod(found.shape)
    spool.take(size)
    if found.offset is None:
        with zipfile.ZipFile(file) as archive, archive.open(found.member) as inner:
            _header(inner)
            array = _piece(inner, found, 1, size)
    else:
        _check_whole(file, found)
        file.seek(found.offset)
        array = np.frombuffer(file.read(size), found.dtype)
    return array.reshape(found.shape, order="F" if found.fortran else "C")
