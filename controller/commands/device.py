"""`lepta device`: the fleet."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.commands import common
from controller.commands.layout import ago, ms, size

if TYPE_CHECKING:
    from controller.commands.screen import Screen
    from controller.replies import Device, ProfileMatch, TimedSwap

app = typer.Typer(help="The devices of the fleet.", no_args_is_help=True)


@app.command()
def add(
    uses: Annotated[int, typer.Option(help="How many devices may join with it.", min=1)] = 1,
    expires: Annotated[float, typer.Option(help="Seconds until it is void.", min=1)] = 3600.0,
    out: Annotated[
        Path | None, typer.Option(help="Write the claim token to this file (mode 0600) instead of the screen.")
    ] = None,
) -> None:
    """Make a claim token with which a new device joins, and say how."""
    from agent.contract.signing import write_secret

    screen = common.screen()
    with common.connect() as client:
        claim, url = client.claim(expires_s=expires, uses=uses), client.place.url
    screen.line("On the device:")
    wheel = f"lepta-{version('lepta')}-py3-none-any.whl"
    screen.line(f"  pip install {wheel}      (`uv build --wheel` makes it, in a clone of Lepta)")
    if out is not None:
        write_secret(out, claim.token + "\n")
        screen.line(f"  lepta-agent run --controller {url} --token-file {out.name}      (copy {out} there first)")
    else:
        screen.line(f"  lepta-agent run --controller {url} --token-file claim.txt")
        screen.line()
        screen.line(f"claim.txt holds this claim token, good for {uses} device{'s' if uses > 1 else ''}:")
        screen.line(f"  {claim.token}")


@app.command("ls")
def list_devices() -> None:
    """Every device: which class it is, what it serves, how busy it is."""
    screen = common.screen()
    with common.connect() as client:
        devices = client.devices()
    if not devices:
        screen.line("no devices; add one with `lepta device add`")
        return
    screen.table(("device", "state", "profile", "load", "models"), [_row(device) for device in devices])


@app.command()
def show(name: Annotated[str, typer.Argument(help="The device's name.")]) -> None:
    """A device: facts, which profiles fit and why, models, swaps."""
    with common.connect() as client:
        device = client.device(name)
    screen = common.screen()
    screen.line(
        f"{device.name}: {state_of(device)}, agent {device.agent_version or 'unknown'}, seen {ago(device.last_seen_s)}"
    )
    _show_facts(screen, device)
    if device.match:
        screen.heading("Profiles")
        screen.table((), [(m.profile, "fits" if m.fits else "does not", _why(m)) for m in device.match])
    if device.models:
        screen.heading("Models")
        rows = [(m.model, f"version {m.version}", m.artifact[:12], m.state, m.runtime, m.reason) for m in device.models]
        screen.table((), rows)
    if device.swaps:
        screen.heading("Swaps, newest first")
        header = ("model", "versions", "outcome", "moved", "took", "gap", "p99 before", "p99 during", "failed", "")
        screen.table(header, [_swap_row(swap) for swap in device.swaps[:10]], right=range(3, 9))


def state_of(device: Device) -> str:
    """`online` or `offline`, and whether something about the device is simulated."""
    return ("online" if device.online else "offline") + (", simulated" if device.simulated else "")


def _why(match: ProfileMatch) -> str:
    """What decided: the conditions that do not hold, or all of them where all do."""
    failed = [reason for reason in match.reasons if reason.startswith("no:")]
    return "; ".join(reason.partition(": ")[2] for reason in failed or match.reasons)


def _row(device: Device) -> tuple[str, ...]:
    models = ", ".join(f"{m.model} {m.version}{'' if m.state == 'serving' else f' ({m.state})'}" for m in device.models)
    return (device.name, state_of(device), device.profile or "no profile fits", _load(device.load), models or "-")


def _load(load: dict[str, Any] | None) -> str:
    if not load:
        return "-"
    return f"cpu {float(load.get('cpu', 0)) * 100:.0f} %, memory {float(load.get('memory', 0)) * 100:.0f} %"


def _show_facts(screen: Screen, device: Device) -> None:
    facts = device.facts
    if facts is None:
        return
    overridden = f"; set by hand: {', '.join(facts.overridden)}" if facts.overridden else ""
    screen.table(
        (),
        [
            ("machine", f"{facts.machine}, {facts.system}, {facts.cpus} processors, {facts.memory_mb} MB"),
            ("board", facts.board or "-"),
            ("accelerators", (", ".join(facts.accelerators) or "-") + overridden),
            ("runtimes", ", ".join(facts.runtimes) or "-"),
            ("load", _load(device.load)),
        ],
    )


def _swap_row(swap: TimedSwap) -> tuple[str, ...]:
    return (
        swap.model,
        f"{swap.from_version or '-'} -> {swap.to_version}",
        swap.outcome,
        size(swap.fetched_bytes),
        f"{swap.total_s:.2f} s",
        ms(swap.gap_ms),
        ms(swap.control.p99_ms),
        ms(swap.during.p99_ms),
        str(swap.during.failed),
        swap.reason,
    )
