"""The controller's HTTP side as a device that joins or renews sees it. Redirects and proxies are not followed."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple, TypeVar

import msgspec

from agent import trust
from agent.clock import Clock
from agent.contract.topics import TopicError, check_name
from agent.enroll import EnrollError, Identity, Revoked, Unreachable

_MAX_ANSWER = 1 << 20
_PORTS = {"http": 80, "https": 443}
_T = TypeVar("_T")


class _Refusal(msgspec.Struct):
    error: str = ""
    hint: str | None = None


class _Authority(msgspec.Struct):
    ca: str


class _Answer(NamedTuple):
    status: int
    body: bytes


class Address(NamedTuple):
    """A controller's URL, taken apart. `path` without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def address_of(url: str) -> Address:
    """Raises EnrollError naming what is wrong with the URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise EnrollError(f"{url}: not a URL: {error}") from error
    if scheme not in _PORTS or not host:
        raise EnrollError(f"{url}: a controller's URL starts with http:// or https://")
    if parts.username or parts.query or parts.fragment:
        raise EnrollError(f"{host}: a controller's URL has a host and a port, and nothing secret")
    return Address(scheme, host, port or _PORTS[scheme], parts.path.rstrip("/"))


def same_controller(one: str, other: str) -> bool:
    """Do two URLs mean the same place?"""
    try:
        return address_of(one) == address_of(other)
    except EnrollError:
        return False


def fetch_ca(address: Address, fingerprint: str, timeout: float) -> str:
    """The controller's CA (PEM), if it is the one with this fingerprint. Nothing secret is sent."""
    expected = trust.plain_fingerprint(fingerprint)
    answer = _ask(address, lambda: trust.unverified((address.host, address.port), timeout), "GET", "/ca", b"", {})
    ca = _decoded(address, answer.body, _Authority).ca if answer.status == 200 else ""
    if not ca:
        raise EnrollError(f"{address.url} answers, but not as a Lepta controller (HTTP {answer.status})")
    found = trust.fingerprint(ca)
    if found != expected:
        raise EnrollError(
            f"{address.url} is not the controller you mean: the fingerprint of its CA is {found}, and you expect "
            f"{expected}. Either the fingerprint is of another controller, or somebody answers in its place"
        )
    return ca


class Desk:
    """Asks one controller. `ca` empty: without TLS. Raises EnrollError, Unreachable or Revoked, with what to do."""

    def __init__(self, address: Address, ca: str, clock: Clock, timeout: float) -> None:
        self._address = address
        self._door = trust.Door(ca, clock) if ca else None
        self._timeout = timeout

    def enroll(self, request: dict[str, Any]) -> Identity:
        """Trade a claim for an identity, which may have to be approved first."""
        answer = self._post("/enroll", request, {})
        if answer.status == 429 or answer.status >= 500:
            raise Unreachable(f"the controller cannot take it now ({answer.status}): {_reason(answer.body)}")
        if answer.status not in (201, 202):
            raise EnrollError(f"the controller refused the enrolment ({answer.status}): {_reason(answer.body)}")
        return self._identity(answer.body)

    def certificate(self, token: str, request: str) -> Identity:
        """The identity as it is now, with a new certificate where the controller speaks TLS."""
        answer = self._post("/certificate", {"csr": request}, {"Authorization": f"Bearer {token}"})
        if answer.status in (401, 403, 404):
            raise Revoked(f"the controller does not take this device any more: {_reason(answer.body)}")
        if answer.status == 429 or answer.status >= 500:
            raise Unreachable(f"the controller cannot answer now ({answer.status}): {_reason(answer.body)}")
        if answer.status not in (200, 202):
            raise EnrollError(f"the controller gave no certificate ({answer.status}): {_reason(answer.body)}")
        return self._identity(answer.body)

    def _identity(self, body: bytes) -> Identity:
        identity = _decoded(self._address, body, Identity)
        try:
            check_name(identity.agent, "agent name")
        except TopicError as error:
            raise _no_controller(self._address, error) from error
        return msgspec.structs.replace(identity, controller=self._address.url)

    def _post(self, path: str, content: dict[str, Any], headers: dict[str, str]) -> _Answer:
        place = (self._address.host, self._address.port)
        door = self._door
        connect = None if door is None else lambda: door.connect(place, self._timeout)
        headers = {"Content-Type": "application/json", **headers}
        return _ask(self._address, connect, "POST", path, msgspec.json.encode(content), headers, self._timeout)


def _ask(
    address: Address,
    connect: Callable[[], ssl.SSLSocket] | None,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    timeout: float = 30.0,
) -> _Answer:
    connection = HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        if connect is not None:
            connection.sock = connect()
        connection.request(method, f"{address.path}/api/v1{path}", body, {**headers, "Connection": "close"})
        response = connection.getresponse()
        return _Answer(response.status, response.read(_MAX_ANSWER))
    except trust.Untrusted as error:
        raise _unreachable(address, error) from error
    except (ConnectionResetError, BrokenPipeError) as error:
        https = "; is its address https:// and not http://?" if connect is None else ""
        raise _unreachable(address, f"it hung up{https}") from error
    except OSError as error:
        raise _unreachable(address, f"{error}; is `lepta up` running there?") from error
    except (HTTPException, ValueError) as error:
        raise _no_controller(address, error) from error
    finally:
        connection.close()


def _unreachable(address: Address, why: object) -> Unreachable:
    return Unreachable(f"no controller at {address.url}: {why}")


def _no_controller(address: Address, why: object) -> EnrollError:
    return EnrollError(f"{address.url} answers, but not as a Lepta controller: {why}")


def _decoded(address: Address, body: bytes, type_: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, ValueError) as error:
        raise _no_controller(address, error) from error


def _reason(body: bytes) -> str:
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, ValueError):
        return "no reason given"
    return refusal.error + (f"; {refusal.hint}" if refusal.hint else "")
