"""What a disk may hold after a power cut: every operation is recorded, and any that was not flushed may be missing.

The model is stricter than most file systems: names and bytes that were not flushed are lost independently of each
other and of their order, and a write may be torn.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agent.disk import Disk, RealDisk

Image = dict[str, bytes]
"""Path below the folder -> content."""
_SECTOR = 512


class Operation(NamedTuple):
    kind: str
    """`write` (whole file), `write_at`, `sync`, `rename` or `remove`."""
    path: str
    final: str = ""
    offset: int = 0
    data: bytes = b""


class RecordingDisk(Disk):
    """The real disk, and a list of what was done to it, in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = RealDisk()
        self._lock = threading.Lock()
        self.operations: list[Operation] = []

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        operation = Operation("write_at", self._name(path), offset=offset, data=bytes(data))
        self._do(operation, lambda: self._real.write_at(path, offset, data))

    def write(self, path: Path, data: bytes) -> None:
        self._do(Operation("write", self._name(path), data=bytes(data)), lambda: self._real.write(path, data))

    def sync(self, path: Path) -> None:
        self._do(Operation("sync", self._name(path)), lambda: self._real.sync(path))

    def rename(self, path: Path, final: Path) -> None:
        operation = Operation("rename", self._name(path), final=self._name(final))
        self._do(operation, lambda: self._real.rename(path, final))

    def remove(self, path: Path) -> None:
        self._do(Operation("remove", self._name(path)), lambda: self._real.remove(path))

    def free(self, path: Path) -> int:
        return self._real.free(path)

    def _do(self, operation: Operation, really: Callable[[], None]) -> None:
        with self._lock:
            really()
            self.operations.append(operation)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


class _File:
    """Bytes that are safe, and writes that are not yet."""

    def __init__(self, safe: bytes = b"") -> None:
        self.safe = safe
        self.pending: list[Operation] = []

    def flush(self) -> None:
        self.safe, self.pending = self.after(self.pending), []

    def after(self, writes: list[Operation]) -> bytes:
        content = self.safe
        for write in writes:
            content = _written(content, write)
        return content


class Medium:
    """Replays operations on an image, and tells what a cut may leave of them."""

    def __init__(self, image: Image) -> None:
        self._files = {name: _File(content) for name, content in image.items()}
        self._safe_names = dict(self._files)
        self._pending_names: list[tuple[Operation, _File | None]] = []

    def do(self, operation: Operation) -> None:
        match operation.kind:
            case "write" | "write_at":
                if operation.path not in self._files:
                    self._files[operation.path] = _File()
                    self._named(Operation("create", operation.path))
                self._files[operation.path].pending.append(operation)
            case "sync" if operation.path in self._files:
                self._files[operation.path].flush()
            case "sync":
                self._flush_names(operation.path)
            case "rename":
                self._named(operation)
                self._files[operation.final] = self._files.pop(operation.path)
            case "remove" if operation.path in self._files:
                self._named(operation)
                del self._files[operation.path]

    def flushed(self) -> Image:
        """Everything reached the medium."""
        return {name: file.after(file.pending) for name, file in self._files.items()}

    def lost(self) -> Image:
        """Only what was flushed did."""
        return {name: file.safe for name, file in self._safe_names.items()}

    def torn(self, chance: random.Random) -> Image:
        """Any part of what was not flushed did, and of a write perhaps only the beginning."""
        names = dict(self._safe_names)
        for operation, file in self._pending_names:
            if chance.random() < 0.5:
                _rename(names, operation, file)
        contents = {id(file): file.after(_some(file.pending, chance)) for file in names.values()}
        return {name: contents[id(file)] for name, file in names.items()}

    def _named(self, operation: Operation) -> None:
        self._pending_names.append((operation, self._files.get(operation.path)))

    def _flush_names(self, folder: str) -> None:
        left = []
        for operation, file in self._pending_names:
            if _folder(operation.final or operation.path) == folder:
                _rename(self._safe_names, operation, file)
            else:
                left.append((operation, file))
        self._pending_names = left


def _rename(names: dict[str, _File], operation: Operation, file: _File | None) -> None:
    before = names.pop(operation.path, None)
    file = file or before
    if operation.kind != "remove" and file is not None:
        names[operation.final or operation.path] = file


def _some(writes: list[Operation], chance: random.Random) -> list[Operation]:
    kept = []
    for write in writes:
        fate = chance.random()
        if fate < 0.25:
            torn = chance.randrange(len(write.data) + 1) // _SECTOR * _SECTOR
            kept.append(write._replace(data=write.data[:torn]))
        elif fate < 0.75:
            kept.append(write)
    return kept


def _written(content: bytes, write: Operation) -> bytes:
    if write.kind == "write":
        return write.data
    if not write.data:
        return content
    content = content.ljust(write.offset, b"\0")
    return content[: write.offset] + write.data + content[write.offset + len(write.data) :]


def _folder(name: str) -> str:
    return name.rpartition("/")[0] or "."


def read(folder: Path) -> Image:
    """The image of a folder as it is."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lay_out(image: Image, folder: Path) -> None:
    """Make `folder` hold exactly this image."""
    for name, content in image.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
