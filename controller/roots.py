"""The root documents of this fleet: which keys sign releases, from the first on, in one file of the data folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.contract import root
from agent.contract.root import Root, RootError
from agent.contract.signing import PublicKey, write_secret
from controller.errors import Internal, UserError

FILE = "roots.json"
AT_ONCE = 8
"""As many as one desired state may carry."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    first: str
    """PEM of the release key that devices trusted before there was a root document."""
    envelopes: tuple[str, ...] = ()


class RootChain:
    """It only grows. Every document is verified again when the controller starts."""

    def __init__(self, data: Path, release: PublicKey) -> None:
        self._path = data / FILE
        self._kept = self._load(release)
        self.current: Root = root.first(self._kept.first)
        try:
            for envelope in self._kept.envelopes:
                self.current = root.follow(self.current, envelope.encode())
        except RootError as error:
            raise Internal(f"{self._path} cannot be used: {error}", "restore it from a backup") from error

    @property
    def newest(self) -> str:
        """Its envelope; empty where there is none yet."""
        return self._kept.envelopes[-1] if self._kept.envelopes else ""

    def after(self, version: int) -> tuple[str, ...]:
        """The documents that follow `version`, oldest first, as many as go into one message."""
        return self._kept.envelopes[version : version + AT_ONCE]

    def release_keys(self) -> list[PublicKey]:
        return self.current.releasers()

    def add(self, envelope: str) -> Root:
        """Take the next document, on disk first; one that is the newest already is taken again. Raises UserError."""
        if envelope == self.newest:
            return self.current
        try:
            following = root.follow(self.current, envelope.encode())
        except RootError as error:
            raise UserError(f"the root document cannot be taken: {error}", "lepta release root --help") from error
        kept = _Kept(first=self._kept.first, envelopes=(*self._kept.envelopes, envelope))
        try:
            write_secret(self._path, msgspec.json.encode(kept).decode())
        except OSError as error:
            raise Internal(f"{self._path} cannot be written: {error.strerror}") from error
        self._kept, self.current = kept, following
        return following

    def _load(self, release: PublicKey) -> _Kept:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept(first=release.pem())
        except (OSError, msgspec.DecodeError, ValueError) as error:
            raise Internal(f"{self._path} cannot be read: {error}", "restore it from a backup") from error
