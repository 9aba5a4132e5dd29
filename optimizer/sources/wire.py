"""Reads protocol-buffer bytes field by field, without anybody's library: nothing is built, nothing runs.

A field that comes twice is given twice: a reader that merges, and one that takes the last, see no more than this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10


class WireError(ValueError):
    """Bytes that are no protocol-buffer message."""


class Field(NamedTuple):
    """`content` is empty for numbers, `value` is 0 for bytes."""

    number: int
    value: int
    content: memoryview


_NOTHING = memoryview(b"")


def fields(content: memoryview) -> Iterator[Field]:
    """Every field of one message, in order; messages inside are bytes. Raises WireError."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field 0")
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield Field(number, value, _NOTHING)
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"wire type {kind}")
        if size > len(content) - at:
            raise WireError("cut off")
        yield Field(number, 0, content[at : at + size] if kind == _BYTES else _NOTHING)
        at += size


def inside(content: memoryview, *path: int) -> Iterator[memoryview]:
    """Every message or string that lies under these field numbers, one after the other."""
    number, *rest = path
    for field in fields(content):
        if field.number == number:
            if rest:
                yield from inside(field.content, *rest)
            else:
                yield field.content


def text(content: memoryview) -> str:
    return bytes(content).decode("utf-8", "replace")


def texts(content: memoryview, *path: int) -> list[str]:
    return [text(found) for found in inside(content, *path)]


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT):
        if at >= len(content):
            raise WireError("cut off")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at
    raise WireError("a number of more than 64 bits")
