"""What a command of `lepta` ends with: exit codes, errors for people, the extra that is missing. Base install only."""

from __future__ import annotations

import sys

EXTRAS = {
    "controller": "alembic fastapi httpx iotcore multipart PIL rich sqlmodel sqlalchemy starlette typer uvicorn",
    "optimizer": "keras sklearn tensorflow",
}
WORK_FAILED, USAGE, INTERRUPTED = 1, 2, 130


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
