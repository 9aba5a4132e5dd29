"""Whose signature on a manifest counts here: the release keys of the newest root document, kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.contract import root
from agent.contract.root import Root, RootError
from agent.contract.signing import PublicKey
from agent.disk import Disk

FILE = "root.json"
_MOST_FORMER = 32
_log = logging.getLogger("lepta.agent.roots")


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    envelope: str
    former: tuple[str, ...] = ()
    """Release keys (PEM) that counted here before: what they signed and what serves goes on serving."""


class Roots:
    """`release_key` and `enrolled`, a root document's envelope or "", are what the device was told when it joined."""

    def __init__(self, folder: Path, disk: Disk, release_key: str, enrolled: str = "") -> None:
        self._path = folder / FILE
        self._disk = disk
        self._current = root.first(release_key)
        self._former: tuple[str, ...] = ()
        for envelope, former in ((enrolled, (release_key,)), self._load()):
            self._begin(envelope, former)

    @property
    def version(self) -> int:
        return self._current.version

    def release_keys(self) -> list[PublicKey]:
        """Those whose signature is good for something new."""
        return self._current.releasers()

    def every_key(self) -> list[PublicKey]:
        """And those that were good when what serves here was installed."""
        return [PublicKey.from_pem(pem) for pem in (*self._current.release_keys, *self._former)]

    def offer(self, envelopes: Iterable[str]) -> bool:
        """Follow these root documents as far as each follows the one before; True if that changed anything. Raises
        RootError for one that does not, and OSError where the disk takes nothing: what counted before then counts."""
        before, current, newest = self._current, self._current, ""
        wrong: RootError | None = None
        for envelope in envelopes:
            try:
                if root.read(envelope.encode()).version > current.version:
                    current, newest = root.follow(current, envelope.encode()), envelope
            except RootError as error:
                wrong = error
                break
        if newest:
            self._keep(newest, current)
        if wrong is not None:
            raise wrong
        return current is not before

    def _keep(self, envelope: str, current: Root) -> None:
        """On disk first. Rare, and what is verified next depends on it: so not on a thread."""
        gone = (pem for pem in self._current.release_keys if pem not in current.release_keys)
        former = tuple(dict.fromkeys((*self._former, *gone)))[-_MOST_FORMER:]
        self._disk.save(self._path, msgspec.json.encode(_Kept(envelope=envelope, former=former)))
        self._current, self._former = current, former
        _log.info("root version %d: %d release keys count now", current.version, len(current.release_keys))

    def _begin(self, envelope: str, former: tuple[str, ...]) -> None:
        if not envelope:
            return
        try:
            found = root.read(envelope.encode())
        except RootError as error:
            _log.error("a root document kept here cannot be used: %s; the release key of the enrolment counts", error)
            return
        if found.version > self._current.version:
            self._current, self._former = found, tuple(dict.fromkeys((*self._former, *former)))

    def _load(self) -> tuple[str, tuple[str, ...]]:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return "", ()
        except (OSError, msgspec.DecodeError, ValueError) as error:
            _log.error("%s cannot be read: %s; the controller is asked again", self._path, error)
            return "", ()
        return kept.envelope, kept.former
