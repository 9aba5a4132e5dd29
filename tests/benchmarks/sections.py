"""Runs a section in a process of its own: `python -m tests.benchmarks.sections MODULE OUT FOLDER [--quick]`."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from agent.contract import children
from tests.benchmarks.results import Figure


class SectionError(RuntimeError):
    """A section ended without figures; what it said stands above."""


def run_apart(module: str, quick: bool) -> list[Figure]:
    """The figures of `module.figures(folder, quick)`, computed by a process that ends before this returns."""
    with tempfile.TemporaryDirectory(prefix="lepta-bench-") as folder:
        out = Path(folder) / "figures.json"
        arguments = [module, str(out), str(Path(folder) / "run"), *(["--quick"] if quick else [])]
        command = [sys.executable, "-m", "tests.benchmarks.sections", *arguments]
        ended = subprocess.run(command, env=children.environment({"PYTHONSAFEPATH": ""}), check=False)
        if ended.returncode != 0 or not out.exists():
            raise SectionError(f"{module} ended with status {ended.returncode}")
        return msgspec.json.decode(out.read_bytes(), type=list[Figure])


def main(module: str, out: str, folder: str, *options: str) -> None:
    Path(folder).mkdir()
    figures = importlib.import_module(module).figures(Path(folder), "--quick" in options)
    Path(out).write_bytes(msgspec.json.encode(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
