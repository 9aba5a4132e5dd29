"""The folder of a run: every file appears whole, and `report.json` last."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from agent.contract.faults import fault
from optimizer.errors import RefusedError
from optimizer.report import File

REPORT = "report.json"


class Folder:
    """The result folder `out`, with a work folder inside for as long as the run lasts."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> Folder:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            # From here on an older report does not describe what lies here.
            (self.out / REPORT).unlink(missing_ok=True)
            self.work = Path(tempfile.mkdtemp(prefix=".work-", dir=self.out))
        except OSError as error:
            raise RefusedError(f"{self.out} cannot be written: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def keep(self, source: Path, name: str) -> File:
        """Copy a file into the folder, whole or not at all, and describe it."""
        temporary = self.work / f"{name}.new"
        shutil.copyfile(source, temporary)
        fault("optimizer.before_rename")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(self.out / name)
        return describe(self.out / name)

    def write(self, name: str, content: bytes) -> None:
        """A file that appears whole or not at all."""
        temporary = self.work / f"{name}.new"
        temporary.write_bytes(content)
        temporary.replace(self.out / name)

    def finish(self, report: bytes) -> None:
        """The report comes last: where it lies, all that it names lies too."""
        self.write(REPORT, report)


def describe(path: Path) -> File:
    return File(file=path.name, digest=digest_of(path), size=path.stat().st_size)


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
