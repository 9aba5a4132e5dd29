"""What the commands of `lepta-agent` begin with: settings from file and command line, facts, a folder of their own."""

from __future__ import annotations

import argparse
import fcntl
import os
from pathlib import Path
from typing import IO, Any

import msgspec

from agent import facts
from agent.cli import DATA, USAGE, CliError
from agent.settings import DEFAULT_CONFIG, AgentSettings, SettingsError, read
from firmware_profiles.profile import Facts

_TOLD = ("name", "data", "token_file", "ca_fingerprint", "runtime", "serve")


def settings_from(options: argparse.Namespace) -> AgentSettings:
    """The configuration file, with what the command line says on top."""
    config = options.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
    try:
        settings = read(config) if config else AgentSettings()
    except SettingsError as error:
        raise CliError(USAGE, str(error)) from error
    told = {name: getattr(options, name, None) for name in _TOLD} | {"controller": _controller(options)}
    changes: dict[str, Any] = {name: str(value) for name, value in told.items() if value}
    if getattr(options, "insecure", False):
        changes["insecure"] = True
    return msgspec.structs.replace(settings, **changes)


def _controller(options: argparse.Namespace) -> str | None:
    return getattr(options, "controller", None) or getattr(options, "url", None)


def facts_of(settings: AgentSettings) -> Facts:
    try:
        return facts.gather(settings.folder, runtime=settings.runtime, overrides=settings.facts, labels=settings.labels)
    except facts.FactsError as error:
        raise CliError(USAGE, str(error)) from error


def token_in(file: str) -> str:
    """The claim token in a file. Raises CliError."""
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(USAGE, f"the token file {file} cannot be read: {error}") from error


def own_folder(folder: Path) -> IO[str]:
    """Make the data folder ours alone; the lock goes with the process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(folder / "agent.lock", "w", encoding="ascii")  # noqa: SIM115 - held as long as we live
    except OSError as error:
        raise CliError(DATA, f"the data folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        message = f"another agent runs with the data folder {folder}; give this one its own --data"
        raise CliError(DATA, message) from error
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
