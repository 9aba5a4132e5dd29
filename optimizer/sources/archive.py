"""Zip archives from outside: how large they become, whether they stay inside of themselves, whether they are whole."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from optimizer.settings import LIMITS
from optimizer.sources.specs import SourceError


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, open; whatever the zip library says of it becomes a SourceError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise SourceError(f"{path.name} is no whole archive: it is cut off or damaged ({error})") from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceError(f"{path.name} cannot be unpacked: {error}; pack it again") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def check_bounds(path: Path, archive: zipfile.ZipFile) -> set[str]:
    """Refuse what unpacks to too much or outside of itself. Returns the names of its files."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > LIMITS.source_bytes or len(entries) > LIMITS.archive_files:
        raise SourceError(
            f"{path.name} unpacks to {unpacked} bytes in {len(entries)} files; at most {LIMITS.source_bytes} are taken"
        )
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or _is_link(entry):
            raise SourceError(f"{path.name} holds a file outside of itself: {entry.filename!r}")
    names = {entry.filename for entry in entries}
    if len(names) != len(entries):
        raise SourceError(f"{path.name} holds two files of one name, so that readers may see different ones")
    return names


def check_whole(path: Path, archive: zipfile.ZipFile) -> None:
    """Read everything once: sizes and checksums are what the directory says."""
    damaged = archive.testzip()
    if damaged is not None:
        raise SourceError(f"{path.name} is damaged: {damaged} does not match its checksum; upload it again")


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return (entry.external_attr >> 16) & 0o170000 == 0o120000
