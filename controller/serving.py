"""Where the API is served: the socket, TLS with the certificate of our own CA, and the URLs that lead there."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from agent.contract import wire
from controller.errors import Conflict, LeptaError, UserError
from controller.identity import addresses
from controller.identity.authority import CA_CERTIFICATE, Authority, ServerFiles
from controller.settings import Settings

_ANY_IPV4, _ANY_IPV6 = "0.0.0.0", "::"
# Forward secret and authenticated; TLS 1.3 has no others.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def check(settings: Settings) -> None:
    """Raise UserError where others could read along without having been told so."""
    if settings.lan and settings.insecure:
        raise UserError("--lan serves TLS, and --insecure is to do without", "leave out one of the two")
    if settings.names and not settings.lan:
        raise UserError("--name is for other machines, and none are served", "add --lan")
    if settings.lan or settings.insecure:
        return
    try:
        local = not settings.everywhere and addresses.is_local(settings.host)
    except OSError as error:
        raise _not_listening(error, settings.host, settings.port) from error
    if not local:
        raise UserError(
            f"on {settings.host} everybody on the network could read keys, models and answers: it would be without TLS",
            "use `lepta up --lan`, which has TLS; or say --insecure, on a network that is yours alone",
        )


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens. Raises LeptaError naming what is in the way."""
    try:
        listener = _everywhere(settings.port) if settings.everywhere else _at(settings.host, settings.port)
    except OSError as error:
        raise _not_listening(error, settings.host, settings.port) from error
    # asyncio sets this only on sockets that name their protocol; without it an answer waits 40 ms for an ACK.
    wire.no_delay(listener)
    with listener:
        yield listener


def url(settings: Settings, port: int) -> str:
    """For tools on this machine."""
    host = "127.0.0.1" if settings.everywhere else settings.host
    return f"{_scheme(settings)}://{addresses.bracketed(host)}:{port}"


def public_url(settings: Settings, local_url: str) -> str:
    """For other machines; the local one where none are served."""
    if not settings.lan and not settings.everywhere:
        return local_url
    host = addresses.bracketed(addresses.names_of(settings).public)
    return f"{_scheme(settings)}://{host}:{urlsplit(local_url).port}"


def files(settings: Settings, authority: Authority, now: float) -> ServerFiles | None:
    """The server's certificate and key for what this machine is called now; None where TLS is not served."""
    if not settings.lan:
        return None
    return authority.server(addresses.names_of(settings).every, now, settings.limits.server_certificate_s)


def renewed(settings: Settings, authority: Authority, server: ServerFiles, now: float) -> bool:
    """Look at the certificate again; True if it was signed anew."""
    before = server.certificate.read_bytes()
    files(settings, authority, now)
    return server.certificate.read_bytes() != before


def ca_file(settings: Settings, authority: Authority) -> Path | None:
    """What callers are to trust; None where TLS is not served."""
    return authority.folder / CA_CERTIFICATE if settings.lan else None


def tls(server: ServerFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.load_cert_chain(server.certificate, server.key)
    return context


def _scheme(settings: Settings) -> str:
    return "https" if settings.lan else "http"


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server((_ANY_IPV6, port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
    return socket.create_server((_ANY_IPV4, port))


def _at(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


def _not_listening(error: OSError, host: str, port: int) -> LeptaError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"port {port} on {host} is in use", "stop what uses it, or choose another with --port")
    return UserError(
        f"cannot listen on {host}:{port}: {error.strerror or error}", "choose others with --host and --port"
    )
