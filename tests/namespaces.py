"""Two hosts on one machine: network namespaces with a cable between them. Needs root and iproute2.

Names are unique to this process; everything is gone afterwards, also after a failure.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
V4, V6 = "10.77.0", "fd00:77:"
_NEWNET = 0x40000000
_LISTEN = "0A"


class Host:
    """A network of its own. `prefix` before a command runs it there; `do` calls a function there."""

    def __init__(self, name: str, cable: str) -> None:
        self.name = name
        self.prefix = ("ip", "netns", "exec", name)
        self._cable = cable
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def do(self, call: Callable[[], T]) -> T:
        """In a thread that lives in this network: sockets that it opens are this host's."""
        return self._thread.submit(call).result()

    def address(self, number: int) -> None:
        """Give it 10.77.0.`number` and fd00:77::`number`."""
        self._ip("addr", "add", f"{V4}.{number}/24", "dev", self._cable)
        self._ip("-6", "addr", "add", f"{V6}:{number}/64", "dev", self._cable, "nodad")

    def no_address(self, number: int) -> None:
        self._ip("addr", "del", f"{V4}.{number}/24", "dev", self._cable)
        self._ip("-6", "addr", "del", f"{V6}:{number}/64", "dev", self._cable)

    def cable(self, plugged: bool) -> None:
        # A switched-off interface forgets its IPv6 addresses, unlike one whose cable was pulled.
        keep = Path(f"/proc/sys/net/ipv6/conf/{self._cable}/keep_addr_on_down")
        self.do(lambda: keep.write_text("1"))
        self._ip("link", "set", self._cable, "up" if plugged else "down")

    def knows(self, **names: str) -> None:
        """Addresses of names, for programs that run here, now and later; `_` in a name stands for a dot."""
        lines = [f"127.0.0.1 localhost {self.name}", "::1 localhost"]
        lines += [f"{address} {name.replace('_', '.')}" for name, address in names.items()]
        # In place: programs that run see this very file.
        (self._etc / "hosts").write_text("\n".join(lines) + "\n")

    def listening(self) -> list[str]:
        """Sockets that wait for somebody else's first word, of every process on this host."""
        found = []
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            table = self.do(lambda kind=kind: Path(f"/proc/thread-self/net/{kind}").read_text())  # type: ignore[misc]
            for line in table.splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                unbound = kind.startswith("udp") and set(remote) <= set("0:")
                if state == _LISTEN or unbound:
                    found.append(f"{kind} {local}")
        return found

    @property
    def _etc(self) -> Path:
        return Path("/etc/netns") / self.name

    def _ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(descriptor, _NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"the network {self.name} cannot be entered")
        finally:
            os.close(descriptor)

    @contextmanager
    def _existing(self) -> Iterator[None]:
        ip("netns", "add", self.name)
        try:
            self._etc.mkdir(parents=True)
            # A name that the hosts file lacks is unknown at once.
            (self._etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            self.knows()
            self._ip("link", "set", "lo", "up")
            yield
        finally:
            self._thread.shutdown()
            ip("netns", "del", self.name)
            shutil.rmtree(self._etc, ignore_errors=True)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Hosts 1 and 2, with the addresses of these numbers, plugged together."""
    tag = secrets.token_hex(3)
    ends = [f"lepta{tag}{side}" for side in "ab"]
    hosts = [Host(f"lepta-{os.getpid()}-{tag}-{side}", end) for side, end in zip("ab", ends, strict=True)]
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(host._existing())
        # It goes with the namespaces.
        peer = ("peer", "name", ends[1], "netns", hosts[1].name)
        ip("link", "add", ends[0], "netns", hosts[0].name, "type", "veth", *peer)
        for number, host in enumerate(hosts, 1):
            host.address(number)
            host.cable(plugged=True)
        yield hosts[0], hosts[1]


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
