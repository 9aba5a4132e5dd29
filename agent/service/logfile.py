"""What the agent says, in a file of bounded size: for devices without a journal."""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path
from typing import Any

from agent.cli import DATA, CliError

KEPT = 3


class _Private(logging.handlers.RotatingFileHandler):
    """Every file, the first and those after a turn, is mode 0600 from its first byte."""

    def _open(self) -> Any:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if self.mode == "a" else os.O_TRUNC)
        return open(os.open(self.baseFilename, flags, 0o600), self.mode, encoding=self.encoding)


def handler(path: Path, megabytes: float) -> logging.Handler:
    """Raises CliError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Private(path, maxBytes=int(megabytes * (1 << 20)), backupCount=KEPT, encoding="utf-8")
    except OSError as error:
        raise CliError(DATA, f"log_file {path} cannot be written: {error.strerror}") from error
