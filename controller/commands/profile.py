"""`lepta profile`: classes of devices. Needs no controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.commands import common
from firmware_profiles import profile as profiles

app = typer.Typer(help="Profiles: classes of devices.", no_args_is_help=True)


@app.command("ls")
def list_profiles() -> None:
    """The profiles that come with Lepta."""
    rows = [(name, p.numerics.weights, p.description) for name, p in sorted(profiles.builtin().items())]
    common.screen().table(("profile", "weights", "what it is"), rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A builtin name or a .toml file.")]) -> None:
    """A profile: what it fits, its numbers, budgets and gate."""
    show_profile(profiles.find(name))


@app.command()
def check(file: Annotated[Path, typer.Argument(help="A profile of your own, .toml.")]) -> None:
    """Read a profile and say what it means, or what is wrong with it."""
    show_profile(profiles.load(file))
    common.screen().line("  this profile can be used")


def show_profile(profile: profiles.Profile) -> None:
    """Every section, one line each."""
    fits, numerics, budgets, gate = profile.fits, profile.numerics, profile.budgets, profile.gate
    machines = ", ".join(fits.machines) or "any machine"
    wanted = [machines, *fits.boards, *(f"accelerator {name}" for name in fits.accelerators)]
    limits = [
        f"{value:g} {unit}"
        for value, unit in (
            (budgets.file_kb, "kB file"),
            (budgets.memory_mb, "MB memory"),
            (budgets.latency_ms, "ms a row"),
        )
        if value
    ]
    least = f"agreement at least {gate.agreement * 100:g} %, SQNR at least {gate.sqnr_db:g} dB"
    by = "HTTP" if profile.fetch.way == "http" else "MQTT"
    large = f", by HTTP from {profile.fetch.http_mb} MB" if profile.fetch.http_mb and by == "MQTT" else ""
    screen = common.screen()
    screen.line(f"{profile.name}: {profile.description}")
    screen.table(
        (),
        [
            ("fits", ", ".join(wanted)),
            ("weights", f"int8, {numerics.weights}; input {numerics.input}, output {numerics.output}"),
            ("operators", ", ".join(profile.operators) or "any"),
            ("budgets", ", ".join(limits) or "none"),
            ("gate", f"accuracy loss at most {gate.accuracy_loss * 100:g} points, {least}"),
            ("runtime", f"{', '.join(profile.runtime.runtimes)}; {profile.runtime.threads} thread"),
            ("fetches", f"by {by}{large}"),
        ],
    )
