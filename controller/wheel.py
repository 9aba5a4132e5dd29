"""Lepta as a wheel, made from the installation that runs: the controller hands its own code to devices.

It is told with its SHA-256, so whoever fetches it need not trust the connection.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from controller.errors import Internal

PACKAGES = ("agent", "controller", "firmware_profiles", "optimizer")
_WHEEL = "Wheel-Version: 1.0\nGenerator: lepta\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_LEFT_OUT = (".pyc", ".pyo", ".part")


class Wheel(NamedTuple):
    name: str
    """The file's name, which says what is in it."""
    content: bytes
    sha256: str

    @property
    def path(self) -> str:
        """Where the API serves it."""
        return f"/install/{self.name}"


def build() -> Wheel:
    """The same code gives the same bytes. Takes about 0.1 s; raises Internal where the installation is not whole."""
    try:
        installed = metadata.distribution("lepta")
        info = f"lepta-{installed.version}.dist-info"
        files = {**dict(_code()), **{f"{info}/{name}": content for name, content in _info(installed)}}
    except (OSError, metadata.PackageNotFoundError) as error:
        raise Internal(f"Lepta's own files cannot be read: {error}", "install Lepta again") from error
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    content = _zipped(files)
    return Wheel(f"lepta-{installed.version}-py3-none-any.whl", content, hashlib.sha256(content).hexdigest())


@cache
def current() -> Wheel:
    """The wheel of this process: made when it is first asked for, then kept in memory (0.4 MB)."""
    return build()


def _code() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package {package} is missing")
        folder = Path(spec.submodule_search_locations[0])
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder.parent)
            if path.is_file() and _belongs(name):
                yield name.as_posix(), path.read_bytes()


def _belongs(name: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    return not hidden and name.suffix not in _LEFT_OUT


def _info(installed: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    for name in ("METADATA", "entry_points.txt"):
        text = installed.read_text(name)
        if text is None:
            raise FileNotFoundError(f"{name} of the installed distribution is missing")
        yield name, text.encode()
    for path in installed.files or ():
        if "licenses" in path.parts:
            yield path.relative_to(path.parts[0]).as_posix(), path.read_binary()
    yield "WHEEL", _WHEEL.encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    return "\n".join([*lines, f"{own},,", ""]).encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()
