"""HTTP to the controller: TLS with its own CA, typed answers, errors that say who is at fault and what to do."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast, get_args
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from controller.client import locate
from controller.client.locate import Place
from controller.errors import LeptaError, UserError, Who

T = TypeVar("T")
API = "/api/v1"


@dataclass(frozen=True)
class ClientLimits:
    """Seconds."""

    connect_s: float = 5.0
    answer_s: float = 60.0
    """Between two pieces of an answer."""
    upload_s: float = 600.0


class ApiError(LeptaError):
    """The controller refused, or could not do it. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, hint: str | None = None, *, status: int = 0, who: Who = "us") -> None:
        super().__init__(message, hint, who=who)
        self.status = status


class Unreachable(ApiError):
    """Nobody answers at the controller's address."""


class _Error(msgspec.Struct):
    error: str
    who: str = "us"
    hint: str | None = None


class Connection:
    """Use as a context manager. Every method raises ApiError."""

    def __init__(self, place: Place, limits: ClientLimits = ClientLimits()) -> None:
        self.place = place
        self._limits = limits
        # A proxy from the environment knows nothing about this machine's own ports.
        self._http = httpx.Client(
            base_url=place.url,
            headers={"Authorization": f"Bearer {place.token()}"},
            timeout=httpx.Timeout(limits.answer_s, connect=limits.connect_s),
            trust_env=not _is_loopback(place.url),
            verify=True if place.ca is None else _trusting(place.ca),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _get(self, path: str, kind: type[T]) -> T:
        return read(self._send("GET", API + path), kind)

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        headers = {"Content-Type": "application/json"}
        return read(self._send("POST", API + path, content=msgspec.json.encode(body or {}), headers=headers), kind)

    def _send(self, method: str, path: str, *, accept: Sequence[int] = (), **options: Any) -> httpx.Response:
        with self._foreign_errors():
            response = self._http.request(method, path, **options)
        if not response.is_success and response.status_code not in accept:
            raise _refused(response)
        return response

    def _lines(self, path: str) -> Iterator[str]:
        """The lines of an answer that comes bit by bit."""
        with self._foreign_errors(), self._http.stream("GET", API + path) as response:
            if not response.is_success:
                response.read()
                raise _refused(response)
            yield from response.iter_lines()

    def _download(self, path: str, to: Path, digest: str | None) -> None:
        beside = to.with_name(to.name + ".part")
        seen = hashlib.sha256()
        try:
            with self._foreign_errors(), self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                with beside.open("wb") as file:
                    for piece in response.iter_bytes():
                        seen.update(piece)
                        file.write(piece)
            if digest is not None and seen.hexdigest() != digest:
                raise ApiError(f"what came for {digest[:12]} has other bytes", "try again; if it stays, check the disk")
            beside.replace(to)
        except OSError as error:
            raise ApiError(f"{to} cannot be written: {error.strerror}", who="user") from error
        finally:
            beside.unlink(missing_ok=True)

    @contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise _unreachable(self.place, error) from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"the controller at {self.place.url} did not answer in time", who="network") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broke(self.place.url, error) from error


def _trusting(ca: Path) -> ssl.SSLContext:
    """TLS with this CA and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise UserError(
            f"the CA in {ca} cannot be read: {error}", f"set {locate.CA_FILE} to the controller's ca.pem"
        ) from error
    return context


def _unreachable(place: Place, error: httpx.ConnectError) -> Unreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{place.url} shows a certificate that is not to be trusted: {cause.verify_message}",
                f"set {locate.CA_FILE} to the ca/ca.pem of that controller's data folder",
                who="user",
            )
        cause = cause.__cause__ or cause.__context__
    if _is_loopback(place.url):
        return Unreachable(locate.NO_CONTROLLER, locate.START_ONE, who="user")
    return Unreachable(f"no controller answers at {place.url}: {error}", "is it running?", who="network")


def _broke(url: str, error: Exception) -> Unreachable:
    plain = url.startswith("http://") and not _is_loopback(url)
    hint = "with --lan a controller answers to https:// only" if plain else "try again"
    return Unreachable(f"the connection to {url} broke: {error}", hint, who="network")


def read(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise not_lepta(f"{response.request.url.path}: {error}") from error


def _refused(response: httpx.Response) -> ApiError:
    try:
        told = msgspec.json.decode(response.content, type=_Error)
    except (msgspec.DecodeError, ValueError):
        return not_lepta(f"status {response.status_code} from {response.request.url.path}", response.status_code)
    who = cast(Who, told.who) if told.who in get_args(Who) else "us"
    return ApiError(told.error, told.hint, status=response.status_code, who=who)


def not_lepta(found: str, status: int = 0) -> ApiError:
    return ApiError(
        f"the controller's answer cannot be understood: {found}",
        f"check {locate.URL}, and that `lepta --version` fits the controller's",
        status=status,
    )


def part(name: str) -> str:
    return quote(name, safe="")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
