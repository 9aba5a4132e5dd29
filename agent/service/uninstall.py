"""`lepta-agent uninstall`: the service goes, the device stays what it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.cli import DATA, OK, CliError
from agent.service import files
from agent.service.install import places_of
from agent.service.manager import Manager, Systemd
from agent.service.places import Places


def run(options: argparse.Namespace) -> int:
    """`lepta-agent uninstall`."""
    where = places_of(options)
    removed = take_away(where, Systemd(user=where.user))
    print("the service is removed" if removed else "no service was installed")
    for kept, what in ((where.on_disk(where.data), "data"), (where.on_disk(where.config), "configuration")):
        if kept.exists():
            print(f"kept the {what} in {kept} (`lepta-agent wipe` removes it)")
    return OK


def take_away(where: Places, manager: Manager) -> bool:
    """Stop the service and remove its unit; False if there was none. Raises CliError."""
    path = where.on_disk(where.unit)
    if not path.is_file():
        return False
    managed = not where.staged and manager.runs()
    if managed:
        manager.disable()
    try:
        link = where.on_disk(where.enabled)
        files.remove(link)
        files.remove(path)
        files.prune(link.parent, path.parent if not where.user else _home(where))
    except OSError as error:
        raise CliError(DATA, f"the unit cannot be removed: {error}; run this as root, or with --user") from error
    if managed:
        manager.reload()
    return True


def _home(where: Places) -> Path:
    return where.on_disk(where.unit).parents[3]
