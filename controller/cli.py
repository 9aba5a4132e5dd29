"""`lepta`: the entry point. It needs the base install only, so that it can name the extra that a command lacks."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

EXTRAS = {
    "controller": "alembic fastapi httpx iotcore multipart PIL rich sqlmodel sqlalchemy starlette typer uvicorn",
    "optimizer": "keras sklearn tensorflow",
}
WORK_FAILED, USAGE, INTERRUPTED = 1, 2, 130


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


def missing(error: ModuleNotFoundError) -> int:
    """Say which extra a failed import belongs to, and how to install it. Re-raises what no extra brings."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules.split()), None)
    if extra is None:
        raise error
    return fail(
        f"this command needs the extra '{extra}', which is not installed ({module} is missing)", install_line(extra)
    )


def install_line(extra: str) -> str:
    """How to install an extra here."""
    if sys.version_info < (3, 11):  # noqa: UP036  this file alone also runs on the base install's 3.10
        return (
            f"the extra '{extra}' needs Python 3.11 or later; this is {sys.version_info.major}.{sys.version_info.minor}"
        )
    return f"pip install 'lepta[{extra}]'"


def fail(message: str, hint: str | None = None, code: int = WORK_FAILED) -> int:
    """Print an error for people; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code
