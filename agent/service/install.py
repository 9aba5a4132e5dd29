"""`lepta-agent install` and what it leaves behind: a unit, a configuration, an enabled service."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import NamedTuple

from agent import settings
from agent.cli import DATA, OK, USAGE, CliError
from agent.service import devices, files, places, program, unit
from agent.service.config import Fleet, config_text
from agent.service.manager import Manager, Systemd
from agent.service.places import Places


class Wishes(NamedTuple):
    """The options of `install`; `join --install` brings only some of them."""

    start: bool = True
    devices: tuple[str, ...] = ()
    memory_mb: int = 0
    controller: str = ""
    token_file: Path | None = None
    ca_fingerprint: str = ""
    program: str = ""


def run(options: argparse.Namespace) -> int:
    """`lepta-agent install`."""
    where = places_of(options)
    wishes = Wishes(
        start=not options.no_start,
        devices=tuple(options.device),
        memory_mb=options.memory_mb,
        controller=options.controller or "",
        token_file=options.token_file,
        ca_fingerprint=options.ca_fingerprint or "",
        program=options.program or "",
    )
    return put(where, wishes, Systemd(user=where.user))


def install(options: argparse.Namespace) -> int:
    """What `lepta-agent join --install` does after joining."""
    where = places_of(options)
    return put(where, Wishes(), Systemd(user=where.user))


def places_of(options: argparse.Namespace) -> Places:
    root = getattr(options, "root", None)
    if root is not None and not root.is_dir():
        raise CliError(USAGE, f"--root {root}: there is no such folder")
    return places.here(
        for_user=getattr(options, "user", False),
        root=Path(os.path.abspath(root)) if root is not None else Path("/"),
        config=options.config,
        data=options.data,
    )


def put(where: Places, wishes: Wishes, manager: Manager) -> int:
    """Install; run again, it brings the unit up to date. Raises CliError."""
    _check(where, wishes)
    managed = where.staged or manager.runs()
    if not where.staged:
        _take_over(where)
    fleet = _write_config(where, wishes, "" if managed else str(where.log))
    if not managed:
        return _without_manager(where)
    plan = _plan(where, wishes, fleet)
    text = unit.user_unit(plan) if where.user else unit.system_unit(plan)
    try:
        files.write(where.on_disk(where.unit), text, 0o644)
        if where.staged:
            return _enable_staged(where)
    except OSError as error:
        raise CliError(DATA, f"the unit cannot be written: {error}; run this as root, or with --user") from error
    return _hand_to(manager, where, wishes, fleet)


def _check(where: Places, wishes: Wishes) -> None:
    if not where.user and not where.data.is_relative_to("/var/lib"):
        raise CliError(USAGE, f"--data {where.data}: a service keeps its data below /var/lib; mount another disk there")
    if not where.user and unit.hidden(str(where.config)):
        raise CliError(USAGE, f"--config {where.config}: a service cannot look there; put it below /etc/lepta")
    if bool(wishes.controller) != bool(wishes.token_file):
        raise CliError(USAGE, "--controller URL and --token-file FILE go together (and --ca-fingerprint with https://)")
    if wishes.controller.startswith("https://") and not wishes.ca_fingerprint:
        raise CliError(USAGE, "--ca-fingerprint is needed with https://; `lepta device add` shows it")


def _take_over(where: Places) -> None:
    """An identity that the user got before calling sudo goes to the service."""
    found = None if where.user else places.of_invoker(os.environ.get("SUDO_USER", ""))
    try:
        if found is None or not (found / files.IDENTITY).is_file():
            return
        if files.runs(found) is not None:
            raise CliError(DATA, f"an agent runs with the data folder {found}: stop it, then install")
        if files.take_over(found, where.data):
            print(f"moved the identity and models of {found} to {where.data}")
        elif found.resolve() != where.data.resolve():
            print(f"{where.data} has an identity of its own; the one in {found} is not used")
    except OSError as error:
        raise CliError(DATA, f"{found} cannot be moved to {where.data}: {error}") from error


def _write_config(where: Places, wishes: Wishes, log: str) -> Fleet:
    """A configuration that is there is kept."""
    path, token = where.on_disk(where.config), where.on_disk(where.token)
    fleet = Fleet(wishes.controller, str(where.token) if wishes.token_file else "", wishes.ca_fingerprint)
    try:
        if wishes.token_file is not None:
            if path.exists():
                raise CliError(USAGE, f"{path} is there already: edit it, or remove it first")
            files.write(token, wishes.token_file.read_text(encoding="utf-8").strip() + "\n", 0o600)
        if path.exists():
            print(f"kept {path}")
        else:
            files.write(path, config_text(fleet, log), 0o644)
            print(f"wrote {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            DATA, f"the configuration cannot be written: {error}; run this as root, or with --user"
        ) from error
    # Without --token-file this time: one that an earlier installation left.
    return fleet if fleet.complete or not token.is_file() else Fleet("as in the file", str(where.token))


def _plan(where: Places, wishes: Wishes, fleet: Fleet) -> unit.Plan:
    here = program.installed()
    command, folders = here.command, here.folders
    if wishes.program:
        command, folders = (wishes.program,), (str(Path(wishes.program).parents[1]),)
    told = devices.named(wishes.devices)
    return unit.Plan(
        command=command,
        config=str(where.config),
        data=str(where.data),
        program_folders=folders,
        devices=told if told or where.staged else devices.of_accelerators(_accelerators()),
        memory_mb=wishes.memory_mb,
        serves=_serves(where.on_disk(where.config)),
        token=fleet.token_file if not where.user else "",
    )


def _serves(config: Path) -> bool:
    """Does its configuration open the local endpoint? Install again after that was changed."""
    try:
        return bool(settings.read(config).serve)
    except settings.SettingsError as error:
        raise CliError(USAGE, str(error)) from error


def _accelerators() -> tuple[str, ...]:
    from agent import facts

    return facts.accelerators()


def _enable_staged(where: Places) -> int:
    link = where.on_disk(where.enabled)
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(where.unit)
    print(f"wrote {where.on_disk(where.unit)}, enabled: it starts when this image is booted")
    return OK


def _hand_to(manager: Manager, where: Places, wishes: Wishes, fleet: Fleet) -> int:
    known = (where.data / files.IDENTITY).is_file()
    files.hand_over(where.data)
    manager.reload()
    print(f"wrote {where.unit}")
    ready = known or fleet.complete
    was_active = manager.state().active == "active"
    manager.enable(start=wishes.start and ready)
    if was_active and wishes.start:
        manager.restart()
    if where.user:
        print("it runs while you are logged in; to start it with the machine: loginctl enable-linger")
    if not ready:
        sudo = "" if where.user else "sudo "
        print(f"not started, because it has joined no controller yet. `lepta device add` there shows the line; then:\n"
              f"  {sudo}lepta-agent install")  # fmt: skip
    elif wishes.start:
        print("started; next: lepta-agent status")
    return OK


def _without_manager(where: Places) -> int:
    """No systemd here: everything but the unit, and the line that starts the agent with the machine."""
    try:
        where.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        where.log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(DATA, f"the data folder {where.data} cannot be made: {error}") from error
    words = [*program.installed().command, "run", "--config", str(where.config), "--data", str(where.data)]
    line = shlex.join(words).replace("%", r"\%")  # cron ends a command at a bare per cent sign
    print("no systemd runs here. To start the agent with the machine, add this line with `crontab -e`:")
    print(f"@reboot {line} >/dev/null 2>&1")
    print(f"What it says goes to {where.log}: lepta-agent logs")
    return OK
