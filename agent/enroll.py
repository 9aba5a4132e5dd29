"""First start: make a key, trade the claim token for an identity, and keep it. Later starts need no controller."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from agent.contract.signing import PrivateKey, SignatureError, write_secret
from agent.contract.topics import TopicError, check_name
from agent.link import Broker
from firmware_profiles.profile import Facts

_KEY = "agent.key"
_IDENTITY = "identity.json"
_MAX_ANSWER = 1 << 20


class EnrollError(Exception):
    """The agent has no identity and got none. `fatal` says that waiting does not help."""


class Unreachable(EnrollError):
    """Nobody answers at the controller's URL."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this agent is and whom it trusts. Kept in `identity.json`, mode 0600."""

    agent: str
    broker: Broker
    controller_key: str
    """PEM; signs `desired` and `cmd`."""
    release_key: str
    """PEM; signs manifests."""
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
    hardware: str = ""
    """Where this identity was made: a copy of it on another machine is not used."""


class Refusal(msgspec.Struct):
    error: str = ""
    hint: str | None = None


def stored(folder: Path) -> Identity | None:
    """The identity kept in `folder`; None before the first enrolment. Raises EnrollError if it cannot be read."""
    path = folder / _IDENTITY
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise EnrollError(f"{path} cannot be read: {error}; restore it, or remove it and enroll again") from error


def enroll(folder: Path, controller: str, token: str, name: str, facts: Facts, timeout: float) -> Identity:
    """Trade `token` for an identity and keep it in `folder`. Raises EnrollError with what to do."""
    try:
        key = PrivateKey.load_or_create(folder / _KEY)
    except (OSError, SignatureError) as error:
        raise EnrollError(f"the agent's key cannot be kept: {error}") from error
    request = {"token": token, "name": name or None, "public_key": key.public.pem(), "facts": facts}
    base = controller.rstrip("/")
    answer = _post(f"{base}/api/v1/enroll", msgspec.json.encode(request), timeout)
    try:
        identity = msgspec.structs.replace(msgspec.json.decode(answer, type=Identity), controller=base)
        check_name(identity.agent, "agent name")
    except (msgspec.DecodeError, TopicError, ValueError) as error:
        raise EnrollError(f"{controller} answers, but not as a Lepta controller: {error}") from error
    write_secret(folder / _IDENTITY, msgspec.json.encode(identity).decode())
    return identity


def _post(url: str, body: bytes, timeout: float) -> bytes:
    # Imported for this one request: an enrolled agent never needs these 4 MB.
    import urllib.error
    import urllib.parse
    import urllib.request

    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise EnrollError(f"{url}: a controller's URL starts with http:// or https://")
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            content: bytes = response.read(_MAX_ANSWER)
            return content
    except urllib.error.HTTPError as error:
        told = _reason(error.read(_MAX_ANSWER))
        raise EnrollError(f"the controller refused the enrolment ({error.code}): {told}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason: object = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unreachable(f"no controller at {url}: {reason}; is `lepta up` running there?") from error


def _reason(body: bytes) -> str:
    try:
        refusal = msgspec.json.decode(body, type=Refusal)
    except (msgspec.DecodeError, ValueError):
        return "no reason given"
    return refusal.error + (f"; {refusal.hint}" if refusal.hint else "")
