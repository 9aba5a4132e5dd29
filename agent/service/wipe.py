"""`lepta-agent wipe`: nothing of the agent stays on this machine but the program itself.

Files are removed and not overwritten first: on flash an overwrite lands in other cells, so it would keep nobody from
the old ones and only wear the card. What protects after the loss of a disk is `lepta device revoke` on the controller;
what protects the bits is an encrypted disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from agent.cli import DATA, OK, USAGE, CliError
from agent.service import files
from agent.service.install import places_of
from agent.service.manager import Manager, Systemd
from agent.service.places import Places, system, user
from agent.service.uninstall import take_away


def run(options: argparse.Namespace) -> int:
    """`lepta-agent wipe`."""
    where = places_of(options)
    return wipe(where, Systemd(user=where.user), _asked if not options.yes else lambda _: True)


def wipe(where: Places, manager: Manager, sure: Callable[[str], bool]) -> int:
    """Remove everything. Raises CliError while the agent runs; run again after a failure, it goes on."""
    data = where.on_disk(where.data)
    try:
        if not where.staged and files.runs(data) is not None:
            how = "lepta-agent uninstall" if where.unit.is_file() else "end that process"
            raise CliError(DATA, f"the agent runs with the data folder {data}; first: {how}")
        _check_ours(data)
        if not sure(f"Remove the identity, the models and the settings of this device ({data})?"):
            print("nothing was removed")
            return OK
        if _is_the_services(where):
            take_away(where, manager)
            _remove_all(where, data)
        else:
            files.remove(data)
    except OSError as error:
        raise CliError(DATA, f"not everything could be removed: {error}; run this as root") from error
    print(
        "nothing of the agent is left here. If the device will not come back, on the controller: lepta device rm NAME"
    )
    return OK


def _check_ours(data: Path) -> None:
    """`--data` may be mistyped; somebody's home must survive that."""
    ours = any((data / name).exists() for name in (files.IDENTITY, files.LOCK, "agent.key"))
    if data.is_dir() and any(data.iterdir()) and not ours:
        raise CliError(USAGE, f"{data} does not look like an agent's data folder; nothing was removed")


def _is_the_services(where: Places) -> bool:
    """Another agent's data folder goes alone; the installed service stays."""
    unit = where.on_disk(where.unit)
    usual = (system() if not where.user else user(Path.home())).data
    return where.data == usual or (unit.is_file() and f"--data {where.data}" in unit.read_text(encoding="utf-8"))


def _remove_all(where: Places, data: Path) -> None:
    if data.is_symlink():  # A service's account: systemd keeps the folder itself in /var/lib/private.
        files.remove(data.resolve())
    log = where.on_disk(where.log)
    mine = [data, where.on_disk(where.config), where.on_disk(where.token), log, *log.parent.glob(f"{log.name}.*")]
    for path in mine:
        files.remove(path)
    for folder in {where.on_disk(where.config).parent, where.on_disk(where.token).parent}:
        files.prune(folder, folder.parent)
    if where.staged or where.user:
        top = where.root if where.staged else Path.home()
        for path in (where.on_disk(where.unit), *mine):
            files.prune(path.parent, top)


def _asked(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CliError(USAGE, "there is nobody to ask: say --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
