"""The root document: which release keys are genuine, and who may say so next.

Each version is signed by the root key of the version before it and by its own, so a device that trusts one version can
follow to any later one, and a stolen release key is shut out by a new version. A device that never saw one trusts the
release key that it enrolled with: version 0, whose root key is that release key. As in The Update Framework, 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.contract.signing import PrivateKey, PublicKey, SignatureError, open_sealed, seal

PAYLOAD_TYPE = "application/vnd.lepta.root.v1+json"
FORMAT = 1
MOST_BYTES = 16_000
_Pem = Annotated[str, Meta(max_length=400)]


class RootError(ValueError):
    """A root document that does not follow the one that is trusted; the message says why."""


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Keys as PEM."""

    version: Annotated[int, Meta(ge=0)]
    root_key: _Pem
    """Signs the next version."""
    release_keys: Annotated[tuple[_Pem, ...], Meta(min_length=1, max_length=8)]
    """Each may sign manifests."""
    issued_at: int = 0
    """Seconds since 1970; for people, never decides."""
    format: int = FORMAT

    def releasers(self) -> list[PublicKey]:
        return [PublicKey.from_pem(pem) for pem in self.release_keys]


def first(release_key: str) -> Root:
    """What a device trusts before any root document: the release key that it enrolled with."""
    return Root(version=0, root_key=release_key, release_keys=(release_key,))


def follow(current: Root, envelope: bytes) -> Root:
    """The root document in `envelope`, if it is the one after `current`. Raises RootError."""
    found = _opened(envelope, current.root_key, "the root key that is trusted now")
    _opened(envelope, found.root_key, "its own root key")
    if found.version != current.version + 1:
        raise RootError(f"root version {found.version} does not follow version {current.version}")
    return found


def read(envelope: bytes) -> Root:
    """A root document that was verified before. Raises RootError."""
    try:
        payload = msgspec.json.decode(envelope, type=_Payload).payload
        found = msgspec.json.decode(payload, type=Root)
    except (msgspec.DecodeError, ValueError) as error:
        raise RootError(f"not a root document: {error}") from error
    return _opened(envelope, found.root_key, "its own root key")


def seal_root(root: Root, keys: Sequence[PrivateKey]) -> bytes:
    """Sign it; `keys` are the root keys of the version before and of this one."""
    unique = {key.public.id: key for key in keys}
    return seal(msgspec.json.encode(root), PAYLOAD_TYPE, *unique.values())


class _Payload(msgspec.Struct):
    payload: bytes
    """msgspec reads base64 into bytes."""


def _opened(envelope: bytes, root_key: str, whose: str) -> Root:
    if len(envelope) > MOST_BYTES:
        raise RootError(f"a root document has at most {MOST_BYTES} bytes, this one has {len(envelope)}")
    try:
        payload = open_sealed(envelope, PAYLOAD_TYPE, [PublicKey.from_pem(root_key)])
        found = msgspec.json.decode(payload, type=Root)
        found.releasers()
    except SignatureError as error:
        raise RootError(f"it is not signed by {whose}: {error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise RootError(f"not a root document: {error}") from error
    if found.format != FORMAT:
        raise RootError(f"root format {found.format} is not known here; this side reads {FORMAT}: update it")
    return found
