"""`lepta run`: goes of the optimizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.made import artifacts_of, show_artifacts, show_bought
from controller.commands.model import artifact_row
from controller.progress import detail_of, step_of

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
def show(
    run: _Id,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
) -> None:
    """A run: how far it is, what it made, what was rejected and why."""
    screen = common.screen()
    with common.connect() as client:
        if watch:
            from controller.client.follow import watch_run

            with screen.progress() as progress:
                watch_run(client, run, progress)
        found = client.run(run)
    screen.line(f"run {found.id}: {found.model} version {found.version}, {found.state}{_where(found)}")
    if found.error:
        screen.line(f"  {found.error}")
    if found.artifacts:
        header = ("profile", "artifact", "bytes", "MACs", "float", "int8", "latency there")
        screen.table(header, [artifact_row(artifact) for artifact in found.artifacts], right=range(2, len(header)))
        show_bought(screen, found.artifacts)
    for entry in found.rejected:
        screen.line(f"  {entry.profile}: rejected: {'; '.join(entry.reasons)}")
    if found.rollout:
        screen.note(f"  lepta rollout show {found.rollout}")


@app.command()
def report(
    run: _Id,
    html: Annotated[Path | None, typer.Option(help="Write the page with all figures to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """What a run found: every artifact against the model that it came from."""
    with common.connect() as client:
        found = client.run_report(run)
        if html is not None:
            client.run_page(run, html)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    screen = common.screen()
    show_artifacts(screen, artifacts_of(found))
    for entry in found.get("rejected") or []:
        screen.line(f"  {entry['profile']}: rejected: {'; '.join(entry['reasons'])}")
    screen.note(f"  {html}" if html else f"  every figure: lepta run report {run} --html FILE")


@app.command()
def cancel(run: _Id) -> None:
    """Stop a run; what it made so far is thrown away."""
    with common.connect() as client:
        common.screen().line(f"run {run}: {client.cancel_run(run).state}")


def _where(run: Run) -> str:
    if run.state != "running":
        return ""
    said = detail_of(run.detail, run.left_s)
    return f": {step_of(run.step, run.profile)}, {run.fraction * 100:.0f} %{', ' if said else ''}{said}"


def _row(run: Run) -> tuple[str, ...]:
    return (run.id, run.model, str(run.version), ", ".join(run.profiles) or "-", run.state + _where(run))
