"""Checks of the repository that no linter makes. Usage: python .ci/check.py [addresses|pins|sizes|wheel FILE]..."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Lines of a file and of a function, in the program and in its tests.
MAX_FILE, MAX_FUNCTION = 400, 45
MAX_TEST_FILE, MAX_TEST_FUNCTION = 500, 60

# The brackets keep this file from finding itself.
_FORBIDDEN = {
    "a registry's address": re.compile(r"pypi\.or[g]|pythonhosted\.or[g]|deb\.debian\.or[g]|registry\.npmj[s]"),
    "a path of one machine": re.compile(r"/wor[k]/|/roo[t]/|/opt/pyp[i]|/opt/wheel[s]|/bash_job[s]"),
    "a left-over note": re.compile(r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b"),
}
_IN_WHEEL = (
    "agent/cli.py",
    "agent/contract/messages.py",
    "controller/cli.py",
    "controller/migrations/env.py",
    "controller/migrations/versions/r0001_first_tables.py",
    "firmware_profiles/x86-cpu.toml",
    "firmware_profiles/rpi4.toml",
    "firmware_profiles/fpga-proxy.toml",
    "optimizer/__main__.py",
    "optimizer/recipes/default.toml",
    "optimizer/templates/report.html",
)


def addresses() -> Iterator[str]:
    """No lock file, no registry's address, no path of one machine, no left-over note in what is committed."""
    for path in _tracked():
        if path.name == "uv.lock":
            yield "uv.lock is committed: it carries download addresses"
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for what, pattern in _FORBIDDEN.items():
                if pattern.search(line):
                    yield f"{path.relative_to(ROOT)}:{number}: {what}: {line.strip()[:100]}"


def pins() -> Iterator[str]:
    """What is installed here is what `constraint-dependencies` says was tested; nothing stands outside that list."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned: dict[str, list[Requirement]] = {}
    for line in settings["tool"]["uv"]["constraint-dependencies"]:
        requirement = Requirement(line)
        pinned.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        here = [r for r in pinned.get(name, []) if r.marker is None or r.marker.evaluate()]
        if name == "lepta":
            continue
        if not here:
            yield f"{name} {distribution.version} is installed and not pinned: add it to constraint-dependencies"
        elif not all(r.specifier.contains(distribution.version) for r in here):
            yield f"{name} {distribution.version} is installed, pinned is {', '.join(str(r.specifier) for r in here)}"


def sizes() -> Iterator[str]:
    """A file holds one idea, a function does one thing."""
    for path in _tracked():
        if path.suffix != ".py":
            continue
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        in_tests = path.is_relative_to(ROOT / "tests")
        most, longest = (MAX_TEST_FILE, MAX_TEST_FUNCTION) if in_tests else (MAX_FILE, MAX_FUNCTION)
        if lines > most:
            yield f"{path.relative_to(ROOT)}: {lines} lines, at most {most}"
        for part in ast.walk(ast.parse(text)):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (part.end_lineno or part.lineno) - part.lineno + 1
                if length > longest:
                    yield f"{path.relative_to(ROOT)}:{part.lineno} {part.name}: {length} lines, at most {longest}"


def wheel(file: str) -> Iterator[str]:
    """The wheel holds the four packages with their data, and nothing else."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    yield from (f"{file} lacks {name}" for name in _IN_WHEEL if name not in names)
    allowed = {"agent", "controller", "firmware_profiles", "optimizer"}
    for name in names:
        top = name.split("/")[0]
        if top not in allowed and not top.endswith(".dist-info"):
            yield f"{file} holds {name}"


def _tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def main(arguments: list[str]) -> int:
    checks: dict[str, Callable[[], Iterator[str]]] = {"addresses": addresses, "pins": pins, "sizes": sizes}
    if arguments[:1] == ["wheel"]:
        found = list(wheel(arguments[1]))
    else:
        found = [line for name in arguments or checks for line in checks[name]()]
    print("\n".join(found) if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
