"""Accepted results on their way to the reducer: appended to one file per job, which outlives a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from agent.contract.messages import decode_tensors, encode_tensors
from agent.contract.tensors import Tensor
from controller.job_data import ShardResult


class Results:
    """`add` writes, and the caller brings `file` to the disk before it counts the shard. What a crash left behind an
    uncounted shard stays in the file and is never read."""

    def __init__(self, folder: Path, job: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{job}.results"
        self.file: BinaryIO = self._path.open("ab")
        self._accepted: list[tuple[ShardResult, int, int]] = []

    def __len__(self) -> int:
        return len(self._accepted)

    def add(self, result: ShardResult) -> tuple[int, int]:
        """Append the outputs; returns their offset and length in the file. Only their place is kept in memory."""
        content = encode_tensors(result.outputs)
        offset = self.file.seek(0, os.SEEK_END)
        self.file.write(content)
        self.remember(result, offset, len(content))
        return offset, len(content)

    def remember(self, result: ShardResult, offset: int, length: int) -> None:
        """A result that is in the file already."""
        self._accepted.append((replace(result, outputs=()), offset, length))

    def read(self) -> Iterator[ShardResult]:
        """Every accepted result with its outputs; for a thread, after the last `add`."""
        with self._path.open("rb") as file:
            for result, offset, length in list(self._accepted):
                file.seek(offset)
                outputs: tuple[Tensor, ...] = decode_tensors(file.read(length))
                yield replace(result, outputs=outputs)

    def close(self) -> None:
        self.file.close()

    def remove(self) -> None:
        """The job ended: the reduced result is in the catalog."""
        self.close()
        self._path.unlink(missing_ok=True)
