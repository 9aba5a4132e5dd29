"""Guarantees of what the agent does to stay small."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from agent import memory

_READ_ONLY = 1


def test_letting_go_of_code_unmaps_pages_and_everything_still_runs() -> None:
    before = _resident_kb()
    memory.let_go_of_code()
    assert _resident_kb() < before
    assert sorted("Lepta".lower()) == ["a", "e", "l", "p", "t"]


def test_a_private_copy_of_a_page_stays_though_it_is_read_only_now(tmp_path: Path) -> None:
    file = tmp_path / "library"
    file.write_bytes(b"old" + bytes(mmap.PAGESIZE))
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_COPY)
    mapped[:3] = b"new"
    held = ctypes.c_char.from_buffer(mapped)
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(ctypes.addressof(held), mmap.PAGESIZE, _READ_ONLY) == 0
    memory.let_go_of_code()
    assert mapped[:3] == b"new"


def _resident_kb() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
