"""Folders become one file for their way: a SavedModel, or data as a folder of pictures or arrays."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.errors import UserError

_MOST_BYTES = 8 * 1024**3
_MOST_FILES = 1_000_000
# These hold their content packed already.
_PACKED = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".npz", ".zip"})


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """`path`, or for a folder a zip of it named like it, which is gone afterwards. Raises UserError."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lepta-upload-") as place:
        packed = Path(place) / f"{path.resolve().name or 'folder'}.zip"
        try:
            _pack(path, packed)
        except OSError as error:
            raise UserError(
                f"{path} cannot be packed: {error.strerror or error}", "TMPDIR names another disk"
            ) from error
        yield packed


def _pack(folder: Path, packed: Path) -> None:
    total = 0
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for number, path in enumerate(_files(folder)):
            total += path.stat().st_size
            if total > _MOST_BYTES or number >= _MOST_FILES:
                raise UserError(f"{folder} has more than {_MOST_BYTES:,} bytes or {_MOST_FILES:,} files", "send less")
            how = zipfile.ZIP_STORED if path.suffix.lower() in _PACKED else None
            archive.write(path, path.relative_to(folder).as_posix(), compress_type=how)


def _files(folder: Path) -> Iterator[Path]:
    """Every file, in order; hidden ones, and links that might lead anywhere, are left out."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path
