"""The system call filter behind systemd's MemoryDenyWriteExecute=, for a process of a test and all its children.

Source: seccomp(2), BPF as in linux/filter.h; systemd's src/shared/seccomp-util.c says which calls it refuses.
"""

from __future__ import annotations

import ctypes
import platform
import struct

_MMAP_MPROTECT = {"x86_64": (9, 10), "aarch64": (222, 226)}
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1
_NUMBER, _THIRD_ARGUMENT = 0, 32
_WRITE_AND_RUN, _RUN = 6, 4
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def no_code_from_data() -> bytes:
    """mmap of what is writable and executable, and mprotect to executable, fail with EPERM."""
    mmap, mprotect = _MMAP_MPROTECT[platform.machine()]
    program = [
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 2, 0, mmap),
        (_EQUAL, 4, 0, mprotect),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_AND, 0, 0, _WRITE_AND_RUN),
        (_EQUAL, 3, 4, _WRITE_AND_RUN),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_AND, 0, 0, _RUN),
        (_EQUAL, 0, 1, _RUN),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in program)


def install() -> None:
    """For this process from now on. Raises OSError."""
    content = no_code_from_data()
    kept = ctypes.create_string_buffer(content, len(content))
    program = _Program(len(content) // 8, ctypes.addressof(kept))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0), (_SECCOMP, _FILTER, ctypes.byref(program))):
        if prctl(*arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
