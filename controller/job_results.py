"""Accepted results on their way to the reducer: appended to one file per job, which outlives a restart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from agent.contract.messages import decode_tensors, encode_tensors
from agent.contract.tensors import Tensor
from controller.reducers.face import Rows


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted shard, and where its outputs lie in the file. `row_ms`: time in the worker a row."""

    shard: int
    first: int
    last: int
    replica: int
    device: str
    artifact: str
    runtime: str
    row_ms: float
    offset: int = 0
    length: int = 0


class Results:
    """`add` writes, and the caller brings `file` to the disk before it counts the shard. What a crash left behind an
    uncounted shard stays in the file and is never read."""

    def __init__(self, folder: Path, job: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{job}.results"
        self.file: BinaryIO = self.path.open("ab")
        self._accepted: list[Entry] = []

    def __len__(self) -> int:
        return len(self._accepted)

    def add(self, outputs: tuple[Tensor, ...]) -> tuple[int, int]:
        """Append outputs; returns their offset and length in the file."""
        content = encode_tensors(outputs)
        offset = self.file.seek(0, os.SEEK_END)
        self.file.write(content)
        return offset, len(content)

    def remember(self, entry: Entry) -> None:
        """A result that is in the file. Only its place is kept in memory."""
        self._accepted.append(entry)

    def entries(self, after: int = 0) -> Sequence[Entry]:
        """The accepted results but for the first so many."""
        return self._accepted[after:]

    def read(self, entries: Iterable[Entry]) -> Iterator[Rows]:
        """Accepted results with their outputs; for any thread."""
        with self.path.open("rb") as file:
            for entry in entries:
                file.seek(entry.offset)
                yield _rows(entry, decode_tensors(file.read(entry.length)))

    def close(self) -> None:
        self.file.close()

    def remove(self) -> None:
        """The job ended: the reduced result is in the catalog."""
        self.close()
        self.path.unlink(missing_ok=True)


def _rows(entry: Entry, outputs: tuple[Tensor, ...]) -> Rows:
    arrays = {tensor.name: np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape) for tensor in outputs}
    own, who = entry.last - entry.first, (entry.device, entry.artifact, entry.runtime)
    kept = {name: array[:own] for name, array in arrays.items()}
    hidden = {name: array[own:] for name, array in arrays.items()}
    return Rows(entry.first, entry.last, *who, kept, entry.row_ms, entry.replica, hidden)
