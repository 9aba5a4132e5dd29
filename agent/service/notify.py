"""Tells the service manager how we are: datagrams to the socket that it names (sd_notify(3)). No library."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Silent where nobody manages this process."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self.watchdog_s = watchdog_s
        """Within this time the manager wants to hear `alive` again; 0: it does not watch."""

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """What the manager said when it started process `pid`."""
        meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        micros = environment.get("WATCHDOG_USEC", "")
        watchdog = int(micros) / 1e6 if meant and micros.isdecimal() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, line: str) -> None:
        """One line for people (`systemctl status`)."""
        self._send(f"STATUS={line.replace(os.linesep, ' ')[:500]}")

    def patience(self, seconds: float) -> None:
        """Starting takes longer: do not give up before that much more time, in which you will hear again."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # A manager that is away, or busy, is told the next time.
                self._socket.sendto(text.encode(), self._address)
