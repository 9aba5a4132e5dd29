"""`lepta rollout`: bringing a version to the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common, terms

if TYPE_CHECKING:
    from controller.commands.screen import Screen
    from controller.replies import Rollout

app = typer.Typer(help="Rollouts: bringing a version to the fleet.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The rollout's id.")]


@app.command()
def start(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Option(help="A number or latest.")] = "latest",
    expires: terms.Expires = None,
    device: terms.Device = None,
    group: terms.Group = None,
    runtime: terms.Runtime = None,
    watch: terms.Watch = None,
    shadow: terms.Shadow = None,
) -> None:
    """Release a version that has its artifacts already, and bring it to every device that fits.

    --watch and --shadow are of this rollout alone; the others are signed, for which the controller must hold the key.
    """
    from controller.client.follow import follow_rollout

    signed = terms.terms_of(expires, device, group, runtime)
    extra = terms.terms_of(None, None, None, None, watch, shadow)
    screen = common.screen()
    with common.connect() as client, screen.progress() as progress:
        release = client.release(model, client.version(model, version).version, signed)
        done = follow_rollout(client, client.start_rollout(release.id, extra), progress)
    show_rollout(screen, done)


@app.command("ls")
def list_rollouts() -> None:
    """Rollouts, newest first."""
    screen = common.screen()
    with common.connect() as client:
        rollouts = client.rollouts()
    if not rollouts:
        screen.line("no rollouts")
        return
    screen.table(("rollout", "model", "version", "state"), [(r.id, r.model, str(r.version), r.state) for r in rollouts])


@app.command()
def show(rollout: _Id) -> None:
    """A rollout, device by device."""
    with common.connect() as client:
        show_rollout(common.screen(), client.rollout(rollout))


@app.command()
def abort(rollout: _Id) -> None:
    """Stop a rollout; devices that took the version keep it."""
    with common.connect() as client:
        common.screen().line(f"rollout {rollout}: {client.abort_rollout(rollout).state}")


def show_rollout(screen: Screen, rollout: Rollout) -> None:
    """One line for the rollout, one for each device."""
    screen.line(f"rollout {rollout.id}: {rollout.model} version {rollout.version}, {rollout.state}")
    screen.table((), [(d.device, d.profile or "-", d.state, d.reason) for d in rollout.devices])
