"""`lepta device`: the fleet, and who belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common, device_drain, device_text
from controller.commands.join_line import Installer, Invitation, line
from controller.commands.layout import ago
from controller.errors import UserError

if TYPE_CHECKING:
    from controller.replies import Device, Revoked

app = typer.Typer(help="The devices of the fleet.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The device's name.")]
Claim = Annotated[bool, typer.Option("--claim", help="The claim that it joined with is void from now on, too.")]


@app.command()
def add(
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for each device that joins; may be given several times.")
    ] = None,
    uses: Annotated[int, typer.Option(help="How many devices may join with it.", min=1)] = 1,
    expires: Annotated[float, typer.Option(help="Seconds until it is void.", min=1)] = 3600.0,
    ask: Annotated[
        bool, typer.Option("--ask", help="A device that joins with it waits for `lepta device approve`.")
    ] = False,
    hardware: Annotated[str, typer.Option(help="Only this device, by the id that `lepta-agent facts` shows.")] = "",
    with_: Annotated[
        Installer, typer.Option("--with", help="What installs Lepta on the device: venv, uv or pipx.")
    ] = "venv",
    out: Annotated[
        Path | None, typer.Option(help="Write the claim token to this file (mode 0600) instead of the screen.")
    ] = None,
) -> None:
    """Make a claim token with which a new device joins, and print the line to paste there."""
    from agent.contract.signing import write_secret

    put, remove = changes(label or [])
    if remove:
        raise UserError(f"a new device has no label {remove[0]!r} to remove", "use --label KEY=VALUE")
    with common.connect() as client:
        claim = client.claim(expires_s=expires, uses=uses, labels=put, approve=not ask, hardware=hardware)
    invitation = Invitation(claim.url, claim.token, claim.ca_fingerprint, claim.wheel_url, claim.wheel_sha256)
    program = common.beside("lepta-agent")
    screen = common.screen()
    until = device_text.day(claim.expires_at)
    if out is None:
        where = "on the device" if claim.wheel_url else "into another terminal of this machine"
        screen.line(f"Paste this {where} (good for {_devices(uses)}, until {until}):")
        screen.line(line(invitation, with_, program=program))
    else:
        write_secret(out, claim.token + "\n")
        screen.line(f"Copy {out} to the device and run there (good for {_devices(uses)}, until {until}):")
        screen.line(line(invitation, with_, token_file=out.name, program=program))
    if ask:
        screen.line("It waits then for `lepta device approve NAME`; `lepta device ls` shows its name.")
    screen.line("Then, here, unless the fleet has a model already:")
    screen.line("lepta deploy MODEL.keras --data DATA.npz")
    screen.line("or, for a small one to try:")
    screen.line("lepta example digits --out digits")


@app.command("ls")
def list_devices(
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Only those with KEY=VALUE; several must all hold.")
    ] = None,
) -> None:
    """Every device: its state and class, what it serves, how busy it is, its labels."""
    wanted, absent = changes(label or [])
    screen = common.screen()
    with common.connect() as client:
        every = client.devices()
    devices = [device for device in every if _fits(device, wanted, absent)]
    if not devices:
        screen.line("no device has these labels" if every else "no devices; add one with `lepta device add`")
        return
    screen.table(device_text.HEADER, [device_text.row(device) for device in devices])


@app.command()
def show(name: Name) -> None:
    """A device: identity, facts, which profiles fit and why, models, swaps."""
    with common.connect() as client:
        device = client.device(name)
    screen = common.screen()
    state, agent = device_text.state_of(device), device.agent_version or "unknown"
    screen.line(f"{device.name}: {state}, agent {agent}, seen {ago(device.last_seen_s)}")
    screen.table((), device_text.facts(device))
    screen.heading("Identity")
    screen.table((), device_text.identity(device))
    if device.match:
        screen.heading("Profiles")
        screen.table((), [(m.profile, "fits" if m.fits else "does not", device_text.why(m)) for m in device.match])
    if device.models:
        screen.heading("Models")
        rows = [
            (m.model, f"version {m.version}", m.artifact[:12], m.state, m.runtime, device_text.reason(m))
            for m in device.models
        ]
        screen.table((), rows)
    if device.swaps:
        screen.heading("Swaps, newest first")
        screen.table(device_text.SWAPS, [device_text.swap(swap) for swap in device.swaps[:10]], right=range(3, 9))
        screen.heading("The newest swap")
        screen.table((), device_text.swap_details(device.swaps[0]))


@app.command()
def approve(name: Name) -> None:
    """Let a device in that waits."""
    with common.connect() as client:
        device = client.approve_device(name)
    common.screen().line(f"{device.name} is approved; it comes within seconds")


@app.command()
def label(
    name: Name,
    change: Annotated[list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Set a label, or remove it.")],
) -> None:
    """Change the labels of a device."""
    put, remove = changes(change)
    with common.connect() as client:
        device = client.label_device(name, put, remove)
    common.screen().line(f"{device.name}: {device_text.labels(device)}")


app.command()(device_drain.cordon)
app.command()(device_drain.drain)
app.command()(device_drain.uncordon)
app.command("undrain", hidden=True)(device_drain.uncordon)


@app.command()
def revoke(name: Name, claim: Claim = False) -> None:
    """Shut a device out, for good: it may only join anew. It stays in the list."""
    with common.connect() as client:
        revoked = client.revoke_device(name, claim=claim)
    _say_out(revoked, "revoked")


@app.command()
def rm(name: Name, claim: Claim = False) -> None:
    """Shut a device out and forget it: another one may have its name."""
    with common.connect() as client:
        revoked = client.remove_device(name, claim=claim)
    _say_out(revoked, "removed")


def changes(texts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`KEY=VALUE` sets, `KEY-` removes: as (what to set, what to remove). Raises UserError for anything else."""
    put: dict[str, str] = {}
    remove = []
    for text in texts:
        key, equals, value = text.partition("=")
        if equals and key:
            put[key] = value
        elif not equals and len(text) > 1 and text.endswith("-"):
            remove.append(text[:-1])
        else:
            raise UserError(f"{text!r} is no label", "KEY=VALUE sets one, KEY- removes it")
    return put, remove


def _fits(device: Device, wanted: dict[str, str], absent: Sequence[str]) -> bool:
    has = all(device.labels.get(key) == value for key, value in wanted.items())
    return has and not any(key in device.labels for key in absent)


def _say_out(revoked: Revoked, what: str) -> None:
    screen = common.screen()
    if revoked.by_broker:
        screen.line(f"{revoked.device} is {what}: its connection is closed, and its certificate is void")
    else:
        screen.line(f"{revoked.device} is {what}: nothing that it says is heard, and nothing is sent to it any more")
        screen.line(
            "The broker cannot shut it out: devices share one password here. `lepta up --lan` tells them apart."
        )
    if revoked.claim_uses:
        open_to = _devices(revoked.claim_uses)
        screen.line(f"It knows a token with which {open_to} may still join; `--claim` makes that void, too.")


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
