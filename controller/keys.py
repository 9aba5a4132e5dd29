"""The controller's keys and secrets: files of mode 0600 in the data folder, made at the first start."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.contract.signing import PrivateKey, PublicKey, SignatureError, write_secret
from controller.errors import Internal
from controller.identity import api_keys
from controller.identity.authority import Authority
from controller.roots import RootChain

CONTROLLER_KEY, RELEASE_KEY, RELEASE_PUBLIC = "controller.key", "release.key", "release.pub"
AUTHORITY = "ca"
API_TOKEN, BROKER_PASSWORD = "api-token", "broker-password"
_SECRET_BYTES = 24


class KeyFileError(Internal):
    """A key or secret that cannot be used."""


@dataclass(frozen=True, repr=False)
class Keys:
    """Not shown by repr, so that no secret reaches a log."""

    controller: PrivateKey
    """Signs `desired` and `cmd`."""
    release: PrivateKey | None
    """Signs manifests. None: it is kept on another machine, see `lepta release`."""
    roots: RootChain
    """Which release keys count."""
    authority: Authority
    """Signs the certificates of the server and of devices."""
    api_token: str
    """The API key of tools on this machine."""
    first: bool
    """It was made just now."""
    broker_password: str


def load_or_create(data: Path, now: float) -> Keys:
    """Read the keys in the data folder, or make them; `now` in seconds since 1970.

    Raises KeyFileError for one that is unreadable, damaged or open to others.
    """
    first = not (data / API_TOKEN).exists()
    controller = _key(data / CONTROLLER_KEY)
    release, public = _release(data)
    return Keys(
        controller=controller,
        release=release,
        roots=RootChain(data, public),
        authority=Authority.load_or_create(data / AUTHORITY, now),
        api_token=secret(data / API_TOKEN, api_keys.make),
        first=first,
        broker_password=secret(data / BROKER_PASSWORD),
    )


def _release(data: Path) -> tuple[PrivateKey | None, PublicKey]:
    """The release key, and its public half, which stays here when the key is moved to another machine."""
    private, public = data / RELEASE_KEY, data / RELEASE_PUBLIC
    try:
        if public.exists() and not private.exists():
            return None, PublicKey.from_pem(public.read_text(encoding="ascii"))
        key = _key(private)
        if not public.exists() or public.read_text(encoding="ascii") != key.public.pem():
            write_secret(public, key.public.pem())
    except (OSError, ValueError) as error:
        raise _unusable(public, str(error)) from error
    return key, key.public


def _password() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def secret(path: Path, make: Callable[[], str] = _password) -> str:
    """The one line in `path`; made there, random, if the file does not exist."""
    try:
        if not path.exists():
            write_secret(path, make() + "\n")
        _check_private(path)
        text = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if not text or not text.isprintable() or " " in text:
        raise _unusable(path, "it holds no secret")
    return text


def _key(path: Path) -> PrivateKey:
    try:
        key = PrivateKey.load_or_create(path)
        _check_private(path)
    except (OSError, SignatureError) as error:
        raise _unusable(path, str(error)) from error
    return key


def _check_private(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path} can be read by other users", f"chmod 600 {path}, and replace it if they may have")


def _unusable(path: Path, why: str) -> KeyFileError:
    return KeyFileError(
        f"{path} cannot be used: {why}", "restore it from a backup; a new one means that devices enrol again"
    )
