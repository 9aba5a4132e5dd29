"""The one line to paste on a device: it installs Lepta and joins. Pure.

The token goes through `echo`, a builtin of every shell: it stands in no process list and in no URL. Which installer
checks the wheel's hash was tried: pip, pipx and `uv pip` refuse changed bytes; `uv tool install` takes them without a
word, so it is not offered.
"""

from __future__ import annotations

import shlex
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from controller.errors import UserError

Installer = Literal["venv", "uv", "pipx"]
INSTALLERS: tuple[Installer, ...] = get_args(Installer)
_HOME = "~/.lepta"
_AGENT = f"{_HOME}/bin/lepta-agent"


class Invitation(NamedTuple):
    """What a claim's answer says. `wheel_url` is empty where the controller serves this machine only."""

    url: str
    """Of the controller, as devices reach it."""
    token: str
    ca_fingerprint: str = ""
    wheel_url: str = ""
    wheel_sha256: str = ""


def line(
    invitation: Invitation,
    installer: Installer = "venv",
    *,
    token_file: str | None = None,
    program: str = "lepta-agent",
    and_then: Literal["--run", "--install"] = "--run",
) -> str:
    """`token_file`: the token comes from that file on the device, not from the line. `program`: the agent's, where it
    is installed already. Raises UserError where the installer cannot be used."""
    if not invitation.wheel_url:
        return _join(invitation, program, token_file, and_then)
    steps = [*_install(invitation, installer), _join(invitation, _program(installer), token_file, and_then)]
    return " && ".join(steps)


def _install(invitation: Invitation, installer: Installer) -> list[str]:
    host = urlsplit(invitation.wheel_url).netloc
    if installer != "venv" and host.startswith("["):
        raise UserError(
            f"{installer} does not take an IPv6 address for a host without a known certificate",
            "leave --with away, or start the controller with --name NAME",
        )
    wheel = shlex.quote(f"lepta @ {invitation.wheel_url}#sha256={invitation.wheel_sha256}")
    trusted = shlex.quote(host)
    if installer == "venv":
        return [f"python3 -m venv {_HOME}", f"{_HOME}/bin/pip install -q --trusted-host {trusted} {wheel}"]
    if installer == "uv":
        return [
            f"uv venv -q --allow-existing {_HOME}",
            f"uv pip install -q --python {_HOME} --allow-insecure-host {trusted} {wheel}",
        ]
    pip = shlex.quote(f"--trusted-host {host}")
    return [f"pipx install --pip-args={pip} {wheel}"]


def _program(installer: Installer) -> str:
    return "~/.local/bin/lepta-agent" if installer == "pipx" else _AGENT


def _join(invitation: Invitation, program: str, token_file: str | None, and_then: str) -> str:
    told = f"--ca-fingerprint {invitation.ca_fingerprint} " if invitation.ca_fingerprint else ""
    url = shlex.quote(invitation.url)
    if token_file is not None:
        return f"{program} join {url} --token-file {shlex.quote(token_file)} {told}{and_then}"
    return f"echo {shlex.quote(invitation.token)} | {program} join {url} --token - {told}{and_then}"
