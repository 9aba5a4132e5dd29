"""Ports of this machine: free ones, and ones that are taken."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

from controller.errors import Conflict

# From below the range that the system gives to outgoing connections.
_PORTS = range(20_000, 32_000)
_TRIES = 50
# Not the seeded kind: two controllers that begin alike would choose the same ports at the same moment.
_CHANCE = random.SystemRandom()
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def free_port(host: str) -> int:
    """A port that is free now; `host` empty: on all interfaces."""
    for port in _CHANCE.sample(_PORTS, _TRIES):
        with contextlib.suppress(OSError):
            _bind(host, port)
            return port
    raise Conflict(f"no free port was found on {host or 'this machine'}", "name one for the broker")


def check_free(host: str, port: int) -> None:
    """Raises Conflict, which names the port, if a broker could not listen there."""
    try:
        _bind(host, port)
    except OSError as error:
        raise Conflict(
            f"the broker cannot listen on {host or '*'}:{port}: {error.strerror}",
            "stop what uses that port, or choose another",
        ) from error


def _bind(host: str, port: int) -> None:
    """As mosquitto does it: a socket for each address, IPv6 apart from IPv4."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(1)
        except OSError as error:
            if host or error.errno not in _NO_SUCH_FAMILY:
                raise
