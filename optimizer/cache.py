"""What passes made, by the digest of all that went in; the least recently used goes when it grows too large."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.faults import fault
from optimizer.errors import RefusedError

MANIFEST = "manifest.json"
_NEW = ".new-"


class Cache:
    """A folder of results, one folder each. Several runs may use it at once: a result appears whole or not at all."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Raises RefusedError where the folder cannot be made."""
        self._folder, self._limit = folder, limit_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(f"{folder} cannot be used as a cache: {error.strerror or error}") from error
        self._clear_abandoned()

    def find(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The folder and the manifest of a result; it counts as used now."""
        found = self._folder / key
        try:
            manifest: dict[str, Any] = msgspec.json.decode((found / MANIFEST).read_bytes())
            os.utime(found)
        except (OSError, msgspec.DecodeError):
            return None
        return found, manifest

    def new(self) -> Path:
        """An empty folder to work in; `keep` makes it a result, otherwise its maker removes it."""
        return Path(tempfile.mkdtemp(prefix=f"{_NEW}{os.getpid()}-", dir=self._folder))

    def keep(self, key: str, made: Path, manifest: Mapping[str, Any]) -> Path:
        """Turn a folder from `new` into the result `key`; the first of two equal ones stays."""
        (made / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        for path in made.rglob("*"):
            if path.is_file():
                _sync(path)
        fault("optimizer.before_cached")
        try:
            made.rename(self._folder / key)
        except OSError:
            # Somebody else made the same meanwhile.
            shutil.rmtree(made, ignore_errors=True)
        self._trim(keep=key)
        return self._folder / key

    def _trim(self, keep: str) -> None:
        entries = [entry for entry in self._folder.iterdir() if not entry.name.startswith(_NEW)]
        aged = sorted((_used(entry), entry) for entry in entries)
        total = sum(size for (_, size), _ in aged)
        for (_, size), entry in aged:
            if total <= self._limit:
                return
            if entry.name != keep:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _clear_abandoned(self) -> None:
        """Remove what processes that were killed have left behind."""
        for entry in self._folder.glob(f"{_NEW}*"):
            pid = entry.name.removeprefix(_NEW).partition("-")[0]
            if not pid.isdigit() or not _alive(int(pid)):
                shutil.rmtree(entry, ignore_errors=True)


def key_of(name: str, revision: int, digests: Mapping[str, str], settings: Any, tools: Mapping[str, str]) -> str:
    """SHA-256 of everything that decides what a pass makes: digests of its inputs by role, settings, tools."""
    whole = {"pass": name, "revision": revision, "inputs": dict(digests), "settings": settings, "tools": dict(tools)}
    return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


def _used(entry: Path) -> tuple[float, int]:
    """When it was used last, and its bytes."""
    with contextlib.suppress(OSError):
        sizes = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
        return entry.stat().st_mtime, sizes
    return 0.0, 0


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
