"""Becomes another program that must not outlive the controller: the kernel ends it when its parent dies (Linux)."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_FILES = 65_536


def order(command: Sequence[str]) -> str:
    """The line for the guard's stdin; made by the process that is to be its parent."""
    return json.dumps({"parent": os.getpid(), "command": list(command)})


def main() -> NoReturn:
    given = json.loads(sys.stdin.buffer.readline())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died before the kernel was told.
        if os.getppid() != given["parent"]:
            sys.exit("the parent is gone")
    _raise_file_limit()
    os.execvp(given["command"][0], given["command"])


def _raise_file_limit() -> None:
    """A connection is a file to a broker, and 1024 files are the usual first limit."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
