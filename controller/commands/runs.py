"""`lepta run`: goes of the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.model import artifact_row

if TYPE_CHECKING:
    from controller.replies import Run

app = typer.Typer(help="Runs of the optimizer.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The run's id.")]


@app.command("ls")
def list_runs() -> None:
    """Runs, newest first."""
    screen = common.screen()
    with common.connect() as client:
        runs = client.runs()
    if not runs:
        screen.line("no runs")
        return
    screen.table(("run", "model", "version", "profiles", "state"), [_row(run) for run in runs])


@app.command()
def show(run: _Id) -> None:
    """A run: how far it is, what it made, what was rejected and why."""
    screen = common.screen()
    with common.connect() as client:
        found = client.run(run)
    screen.line(f"run {found.id}: {found.model} version {found.version}, {found.state}{_where(found)}")
    if found.error:
        screen.line(f"  {found.error}")
    if found.artifacts:
        header = ("profile", "artifact", "bytes", "MACs", "float", "int8", "latency there")
        screen.table(header, [artifact_row(artifact) for artifact in found.artifacts], right=range(2, len(header)))
    for entry in found.rejected:
        screen.line(f"  {entry.profile}: rejected: {'; '.join(entry.reasons)}")
    if found.rollout:
        screen.note(f"  lepta rollout show {found.rollout}")


@app.command()
def cancel(run: _Id) -> None:
    """Stop a run; what it made so far is thrown away."""
    with common.connect() as client:
        common.screen().line(f"run {run}: {client.cancel_run(run).state}")


def _where(run: Run) -> str:
    if run.state != "running":
        return ""
    return f": {run.step} {run.profile} {run.fraction * 100:.0f} % {run.detail}".rstrip()


def _row(run: Run) -> tuple[str, ...]:
    return (run.id, run.model, str(run.version), ", ".join(run.profiles) or "-", run.state + _where(run))
