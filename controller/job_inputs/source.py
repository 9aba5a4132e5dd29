"""A job's rows as flat files that are read by place, so that memory does not grow with the input.

Not memory-mapped: touched pages of a map count as the controller's own memory, and a lost disk would end the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from agent.contract.tensors import Tensor
from controller.errors import Internal

Array = npt.NDArray[Any]


class Stored(msgspec.Struct, frozen=True):
    """Rows that lie one after another in a file, in C order.

    `file`: a name in the folder of what was prepared, empty for the input itself. `dtype`: numpy's, with byte order.
    `sent_as`: the dtype on the wire. `shape`: of a row.
    """

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    sent_as: str


class Layout(msgspec.Struct, frozen=True):
    """An input that fits its model: where the rows of each of the model's inputs lie."""

    rows: int
    inputs: dict[str, Stored]
    labels: Stored | None = None
    """Class numbers (int64), -1 where the class is not known."""
    ids: Stored | None = None


class Source:
    """A prepared input; it stays readable when its files are deleted meanwhile. `close` it."""

    def __init__(self, layout: Layout, file: Path, folder: Path) -> None:
        self.rows = layout.rows
        self.folder = folder
        stored = {name: layout.inputs[name] for name in layout.inputs}
        places = [*stored.values(), *(each for each in (layout.labels, layout.ids) if each is not None)]
        self._open: dict[str, int] = {}
        for place in places:
            if place.file not in self._open:
                self._open[place.file] = os.open(folder / place.file if place.file else file, os.O_RDONLY)
        self._inputs: Mapping[str, Stored] = stored
        self.row_bytes = sum(np.dtype(each.sent_as).itemsize * math.prod(each.shape) for each in stored.values())
        """Bytes of one row on the wire."""
        self.labels = self._whole(layout.labels)
        """(rows,) class numbers, -1 where not known; None without labels."""
        self.ids = self._whole(layout.ids)

    def read(self, first: int, last: int) -> dict[str, Array]:
        """Rows `first` to `last` (exclusive) of every input by name, each (last - first, ...) as it is sent."""
        return {
            name: self._read(stored, first, last).astype(stored.sent_as, copy=False)
            for name, stored in self._inputs.items()
        }

    def tensors(self, first: int, last: int) -> tuple[Tensor, ...]:
        """The same for the wire."""
        return tuple(tensor_of(name, array) for name, array in self.read(first, last).items())

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _whole(self, stored: Stored | None) -> Array | None:
        return None if stored is None else self._read(stored, 0, self.rows)

    def _read(self, stored: Stored, first: int, last: int) -> Array:
        dtype = np.dtype(stored.dtype)
        return read_rows(self._open[stored.file], stored.offset, dtype, stored.shape, first, last)


def read_rows(
    descriptor: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], first: int, last: int
) -> Array:
    """Rows `first` to `last` of a file whose rows of `shape` begin at `offset`. Raises Internal where it is shorter."""
    array = np.empty((last - first, *shape), dtype)
    # One read gives at most 2 GiB.
    view = array.reshape(-1).view(np.uint8).data
    at = offset + first * dtype.itemsize * math.prod(shape)
    while view:
        count = os.preadv(descriptor, [view], at)
        if not count:
            raise Internal("rows of the job were cut short on the disk", "check the disk, and start the job again")
        view, at = view[count:], at + count
    return array


def tensor_of(name: str, array: Array) -> Tensor:
    return Tensor(name, array.dtype.name, array.shape, array.astype(array.dtype.newbyteorder("<")).tobytes())
