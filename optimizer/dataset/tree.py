"""The files of a folder, or of a zip, by their names. Nothing is unpacked to disk."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from optimizer.data import DataError
from optimizer.settings import LIMITS


class Entry(NamedTuple):
    """A file: its name with slashes, its bytes unpacked, and how to open it for reading."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextmanager
def files_of(path: Path) -> Iterator[list[Entry]]:
    """Of a folder, a zip (an .npz is one) or a single .npy file; in the order of their names.

    Raises DataError for what is none of these, larger than the limits, or leads outside.
    """
    if path.is_dir():
        yield _checked(path, _of_folder(path))
        return
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if start == b"\x93NUMPY":
        yield _checked(path, [Entry(path.name, path.stat().st_size, _opener(path))])
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path.name} is no data that is known ({error}): give an .npz or .npy file, a folder, or a zip of one"
        ) from error
    with archive:
        yield _checked(path, _of_archive(path, archive))


def _of_archive(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path.name} holds a file outside of itself: {info.filename!r}")
        if not info.is_dir():
            yield Entry(name, info.file_size, partial(archive.open, info))


def _of_folder(folder: Path) -> Iterator[Entry]:
    root = folder.resolve()
    for top, _, names in os.walk(root):
        for name in names:
            file = Path(top, name)
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                raise DataError(
                    f"{file.relative_to(root)} is a link that leads out of {folder.name}; copy the file there"
                )
            if file.is_file():
                yield Entry(file.relative_to(root).as_posix(), file.stat().st_size, _opener(file))


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _checked(path: Path, found: Iterable[Entry]) -> list[Entry]:
    """Without what systems leave lying about, and within bounds."""
    entries, size = [], 0
    for entry in found:
        size += entry.size
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(entry.name).parts):
            entries.append(entry)
        if size > LIMITS.data_bytes or len(entries) > LIMITS.data_files:
            raise DataError(
                f"{path.name} unpacks to more than {LIMITS.data_bytes // 10**6} MB or {LIMITS.data_files:,} files; "
                "give fewer rows"
            )
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path.name} holds {twice} twice; give it once")
    return sorted(entries, key=lambda entry: entry.name)
