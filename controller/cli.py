"""`lepta`: the entry point. It needs the base install only, so that it can name the extra that a command lacks."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

from controller.endings import WORK_FAILED, missing


def main() -> int:
    """Run a command; returns the exit code: 1 where the work failed, 2 for wrong usage, 130 after Ctrl-C."""
    if sys.argv[1:] == ["--version"]:
        print(f"lepta {version('lepta')}")
        return 0
    try:
        from controller.commands.root import run
    except ModuleNotFoundError as error:
        return missing(error)
    try:
        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        return missing(error)
    except BrokenPipeError:
        # The reader went away (`lepta ... | head`); what Python would still flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WORK_FAILED
