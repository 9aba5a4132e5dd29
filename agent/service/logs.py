"""`lepta-agent logs`: from the journal, or from `log_file`."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agent.cli import DATA, OK, CliError
from agent.preparing import settings_from
from agent.service.install import places_of
from agent.service.look import config_of
from agent.service.manager import Systemd

_LOOK_S = 0.3


def run(options: argparse.Namespace) -> int:
    """`lepta-agent logs`."""
    where = places_of(options)
    file = settings_from(config_of(options, where)).log_file
    if file:
        return show(Path(file).expanduser(), max(0, options.lines), follow=options.follow)
    manager = Systemd(user=where.user)
    if not manager.runs():
        raise CliError(
            DATA, "no systemd runs here and agent.toml names no log_file: the agent speaks where it was started"
        )
    return manager.logs(max(0, options.lines), follow=options.follow)


def show(path: Path, lines: int, *, follow: bool, over: Callable[[], bool] = lambda: False) -> int:
    """The newest lines; with `follow` also what comes until `over`, Ctrl-C at the latest. Raises CliError."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            print("".join(deque(file, maxlen=lines)), end="", flush=True)
            place = file.tell()
        while follow and not over():
            time.sleep(_LOOK_S)
            place = _print_from(path, place)
    except KeyboardInterrupt:
        return OK
    except OSError as error:
        raise CliError(DATA, f"{path} cannot be read: {error.strerror}") from error
    return OK


def _print_from(path: Path, place: int) -> int:
    """What was added since; a file that is shorter than it was is a new one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(place if path.stat().st_size >= place else 0)
        print(file.read(), end="", flush=True)
        return file.tell()
