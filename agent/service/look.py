"""What can be seen of an agent from outside its process."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent import enroll
from agent.cli import DATA, CliError
from agent.enroll import EnrollError, Identity
from agent.service import files
from agent.service.places import Places
from agent.service.presence import FILE, Shown


class Seen(NamedTuple):
    identity: Identity | None
    pid: int | None
    """None: no agent runs with this data folder."""
    shown: Shown | None
    """What the running agent says of itself."""


def look(data: Path) -> Seen:
    """Raises CliError where the data folder may not be read, or holds a broken identity."""
    try:
        pid = files.runs(data)
        identity = enroll.stored(data)
        return Seen(identity, pid, _shown(data / FILE) if pid is not None else None)
    except PermissionError as error:
        raise CliError(DATA, f"{data} belongs to another account: run this with sudo") from error
    except OSError as error:
        raise CliError(DATA, f"{data} cannot be read: {error.strerror}") from error
    except EnrollError as error:
        if isinstance(error.__cause__, PermissionError):
            raise CliError(DATA, f"{data} belongs to another account: run this with sudo") from error
        raise CliError(DATA, str(error)) from error


def config_of(options: argparse.Namespace, where: Places) -> argparse.Namespace:
    """The options with the configuration file that an installed service here would read."""
    config = options.config or (where.config if where.config.is_file() else None)
    return argparse.Namespace(config=config, data=options.data)


def _shown(path: Path) -> Shown | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Shown)
    except (FileNotFoundError, msgspec.DecodeError, ValueError):
        return None
