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


def run_apart(module: str, quick: bool, keep: Path | None = None) -> list[Figure]:
    """The figures of `module.figures(folder, quick)`, computed by a process that ends before this returns.

    `keep`: the section's folder is made there and stays, instead of one that goes with it.
    """
    with tempfile.TemporaryDirectory(prefix="lepta-bench-") as folder:
        out = Path(folder) / "figures.json"
        run = Path(folder) / "run" if keep is None else keep.absolute() / module.rpartition(".")[2]
        arguments = [module, str(out), str(run), *(["--quick"] if quick else [])]
        command = [sys.executable, "-m", "tests.benchmarks.sections", *arguments]
        ended = subprocess.run(command, env=children.environment({"PYTHONSAFEPATH": ""}), check=False)
        if ended.returncode != 0 or not out.exists():
            raise SectionError(f"{module} ended with status {ended.returncode}")
        return msgspec.json.decode(out.read_bytes(), type=list[Figure])


def main(module: str, out: str, folder: str, *options: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    figures = importlib.import_module(module).figures(Path(folder), "--quick" in options)
    Path(out).write_bytes(msgspec.json.encode(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
