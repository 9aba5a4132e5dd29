"""The service manager as a port: every call of systemctl and journalctl goes through here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, Protocol

from agent.cli import CliError
from agent.service.unit import NAME

FAILED = 6
"""Exit status: the service manager did not do what it was asked."""
_WAIT_S = 90


class State(NamedTuple):
    """As the manager names them, such as "active", "failed", "inactive"; and "enabled", "disabled"."""

    active: str
    enabled: str


class Manager(Protocol):
    """All methods raise CliError naming what the manager said."""

    def runs(self) -> bool:
        """Is there a manager at all?"""

    def reload(self) -> None: ...

    def enable(self, *, start: bool) -> None: ...

    def restart(self) -> None: ...

    def disable(self) -> None:
        """Stop the service, and do not start it with the machine any more."""

    def state(self) -> State: ...

    def logs(self, lines: int, *, follow: bool) -> int:
        """Show the newest lines; returns the exit status."""


class Systemd:
    """The system's manager, or with `user` the user's own."""

    def __init__(self, *, user: bool = False, wait_s: float = _WAIT_S) -> None:
        self._user = user
        self._wait_s = wait_s

    def runs(self) -> bool:
        if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
            return False
        if not self._user:
            return True
        # Without a session of the user (lingering or logged in) there is no manager to talk to.
        return Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"), "systemd").is_dir()

    def reload(self) -> None:
        self._call("daemon-reload")

    def enable(self, *, start: bool) -> None:
        self._call("enable", *(["--now"] if start else []), NAME)

    def restart(self) -> None:
        self._call("restart", NAME)

    def disable(self) -> None:
        self._call("disable", "--now", NAME)

    def state(self) -> State:
        return State(self._ask("is-active"), self._ask("is-enabled"))

    def logs(self, lines: int, *, follow: bool) -> int:
        unit = ["--user-unit" if self._user else "--unit", NAME]
        command = ["journalctl", *unit, "--no-pager", "--lines", str(lines), *(["--follow"] if follow else [])]
        try:
            return subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return 0
        except OSError as error:
            raise CliError(FAILED, f"journalctl cannot be run: {error.strerror}") from error

    def _call(self, *arguments: str) -> None:
        result = self._run(*arguments)
        if result.returncode != 0:
            said = result.stderr.strip().replace("\n", "; ") or f"exit status {result.returncode}"
            raise CliError(FAILED, f"`systemctl {' '.join(arguments)}` failed: {said}")

    def _ask(self, verb: str) -> str:
        said = self._run(verb, NAME).stdout.strip()
        return said.splitlines()[0] if said else "unknown"

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["systemctl", *(["--user"] if self._user else []), "--no-pager", *arguments]
        try:
            return subprocess.run(command, check=False, capture_output=True, text=True, timeout=self._wait_s)
        except subprocess.TimeoutExpired as error:
            # A first start may wait for an operator's approval for days.
            look = "lepta-agent status --user" if self._user else "lepta-agent status"
            waited = f"`systemctl {' '.join(arguments)}` is not done after {self._wait_s:g} s"
            raise CliError(FAILED, f"{waited}; it goes on by itself, and this shows how far it is: {look}") from error
        except OSError as error:
            raise CliError(FAILED, f"systemctl cannot be run: {error.strerror}") from error
