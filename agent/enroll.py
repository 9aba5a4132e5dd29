"""Who this agent is: the identity that a controller gave it, and the files that keep it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from agent.contract.signing import write_secret
from agent.link import Broker

KEY = "agent.key"
IDENTITY = "identity.json"
CERTIFICATE = "agent.pem"
JOINING = "joining.json"
_POINTERS = "state.json"
_ROOT = "root.json"


class EnrollError(Exception):
    """The agent has no identity and got none; waiting does not help."""


class Unreachable(EnrollError):
    """Nobody answers at the controller's URL."""


class Revoked(EnrollError):
    """The controller does not take this identity any more."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this agent is and whom it trusts. Kept in `identity.json`, mode 0600."""

    agent: str
    broker: Broker
    """`host` "": where the controller is, which is asked for by name at each connection."""
    controller_key: str
    """PEM; signs `desired` and `cmd`."""
    release_key: str
    """PEM; signed manifests when it joined. `agent.roots` says which keys do now."""
    device_token: str
    controller: str = ""
    state: Literal["approved", "pending"] = "approved"
    ca: str = ""
    """PEM of the controller's CA; empty where it speaks no TLS."""
    certificate: str = ""
    """PEM, for the agent's key."""
    not_before: float = 0.0
    """Seconds since 1970, by the controller's clock."""
    not_after: float = 0.0
    root: str = ""
    """Envelope of the newest root document when it joined; empty: there was none."""
    hardware: str = ""
    """Where this identity was made: a copy of it on another machine is not used."""


class Joining(msgspec.Struct, frozen=True, kw_only=True):
    """A join that began: the key is on disk, and perhaps the controller took it already. Holds no secret."""

    controller: str


def stored(folder: Path) -> Identity | None:
    """The identity kept in `folder`; None before the first enrolment. Raises EnrollError if it cannot be read."""
    path = folder / IDENTITY
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise EnrollError(f"{path} cannot be read: {error}; restore it, or remove it and enroll again") from error


def begun(folder: Path) -> Joining | None:
    """The join that was interrupted, if one was."""
    try:
        return msgspec.json.decode((folder / JOINING).read_bytes(), type=Joining)
    except (OSError, msgspec.DecodeError, ValueError):
        return None


def begin(folder: Path, controller: str) -> None:
    write_secret(folder / JOINING, msgspec.json.encode(Joining(controller=controller)).decode())


def keep(folder: Path, identity: Identity) -> None:
    """Write the identity; the certificate goes first, so that a kill between the two leaves an older, good pair."""
    lay_out(folder, identity)
    write_secret(folder / IDENTITY, msgspec.json.encode(identity).decode())
    (folder / JOINING).unlink(missing_ok=True)


def lay_out(folder: Path, identity: Identity) -> None:
    """Put the certificate where TLS reads it, if it is not there."""
    path = folder / CERTIFICATE
    with contextlib.suppress(OSError):
        if path.read_text(encoding="ascii") == identity.certificate:
            return
    if identity.certificate:
        write_secret(path, identity.certificate)


def forget(folder: Path) -> None:
    """Become nobody: key, identity and what a controller wished of it go; blobs are checked by digest and stay."""
    for name in (IDENTITY, KEY, CERTIFICATE, JOINING, _POINTERS, _ROOT):
        (folder / name).unlink(missing_ok=True)
