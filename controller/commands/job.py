"""`lepta job`: one model over many rows, spread over the fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.layout import seconds, size
from controller.errors import UserError

if TYPE_CHECKING:
    from controller.commands.screen import Screen
    from controller.replies import Job

app = typer.Typer(help="Jobs: one model over many rows, spread over the fleet.", no_args_is_help=True)
# Metrics that are shares of 1.
_SHARES = ("accuracy", "ece", "disagreement", "canary", "reliability")
_Id = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("run")
def start(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    input_file: Annotated[
        Path, typer.Option("--input", help="Rows: .npz, .npy, .csv, .parquet, or a folder, .zip or .tar of pictures.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where the result goes, .npz or .parquet; implies --wait.")
    ] = None,
    reduce: Annotated[
        str, typer.Option(help="What becomes of the answers: score, vote, stats, topk, or one of yours.")
    ] = "score",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for the reducer; may be repeated.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Default: the version that serves.")] = None,
    profile: Annotated[str | None, typer.Option(help="Only devices of this class.")] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Allow several artifacts; each row names its own.")] = False,
    priority: Annotated[int, typer.Option(help="Higher ones go first, equal ones share.", min=-100, max=100)] = 0,
    canaries: Annotated[int, typer.Option(help="Rows hidden in every shard, to find bad devices.", min=0)] = 0,
    shard_rows: Annotated[int | None, typer.Option(help="Rows handed out at once.", min=1)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
) -> None:
    """Compute every row of a file on the fleet, and reduce the answers."""
    from controller.client.follow import follow_job
    from controller.client.pack import as_file

    screen, told, kind = common.screen(), _settings(settings or []), _kind(output)
    options = {"version": version, "profile": profile, "mixed": mixed, "priority": priority, "canaries": canaries}
    with common.connect() as client:
        with as_file(input_file) as packed:
            data = client.put_file(packed).digest
        job = client.start_job(model, data, shard_rows=shard_rows, reduce=reduce, settings=told, format=kind, **options)
        if not wait and output is None:
            screen.line(f"job {job.id}: {job.state}")
            screen.note(f"next: lepta job show {job.id}")
            return
        with screen.progress() as progress:
            job = follow_job(client, job, progress)
        show_job(screen, job)
        if output is not None:
            client.job_result(job.id, output)
            screen.line(f"  result in {output}")


@app.command("ls")
def list_jobs() -> None:
    """Jobs, newest first."""
    screen = common.screen()
    with common.connect() as client:
        jobs = client.jobs()
    if not jobs:
        screen.line("no jobs")
        return
    rows = [(j.id, j.model, str(j.rows), f"{j.accepted}/{j.shards}", j.state, seconds(j.makespan_s)) for j in jobs]
    screen.table(("job", "model", "rows", "shards", "state", "took"), rows, right=(2, 3, 5))


@app.command()
def show(
    job: _Id,
    output: Annotated[Path | None, typer.Option(help="Also download the result.")] = None,
) -> None:
    """A job: how far it is, and who did what."""
    with common.connect() as client:
        show_job(common.screen(), client.job(job))
        if output is not None:
            client.job_result(job, output)


@app.command()
def pause(job: _Id) -> None:
    """Hand out nothing more until `resume`."""
    with common.connect() as client:
        common.screen().line(f"job {job}: {client.pause_job(job).state}")


@app.command()
def resume(job: _Id) -> None:
    """Go on with a job that was paused."""
    with common.connect() as client:
        common.screen().line(f"job {job}: {client.resume_job(job).state}")


@app.command()
def cancel(job: _Id) -> None:
    """Stop a job."""
    with common.connect() as client:
        common.screen().line(f"job {job}: {client.cancel_job(job).state}")


def show_job(screen: Screen, job: Job) -> None:
    """Everything about a job."""
    screen.line(f"job {job.id}: {job.model} version {job.version}, {job.state}{f': {job.error}' if job.error else ''}")
    rows = [
        ("rows", f"{job.rows} in {job.shards} shards, {job.accepted} accepted"),
        ("moved", f"{job.moved} shards to another device; {job.duplicates_refused} duplicates refused"),
        ("computed by", f"{job.artifact[:12] or 'several artifacts'} on {job.runtime or 'several runtimes'}"),
        ("time", seconds(job.makespan_s)),
        ("data", _data(job)),
        ("cost", f"{job.device_s:.2f} device seconds"),
    ]
    rows += [(name, _metric(name, value)) for name, value in (job.metrics or {}).items()]
    if job.lost or job.quarantined:
        rows.append(("without answer", f"{job.lost} lost, {job.quarantined} quarantined"))
    screen.table((), rows)
    devices = [(n, str(s.shards), str(s.rows), seconds(s.busy_s)) for n, s in sorted(job.devices.items())]
    if devices:
        screen.table(("device", "shards", "rows", "busy"), devices, right=(1, 2, 3))


def _data(job: Job) -> str:
    """What moved, and what did not have to."""
    less = [(job.bytes_cached, "less as devices had it"), (job.bytes_packed, "less as it was packed")]
    return ", ".join([f"{size(job.bytes_moved)} moved", *(f"{size(saved)} {why}" for saved, why in less if saved)])


def _metric(name: str, value: float) -> str:
    if name.startswith(_SHARES):
        return f"{value * 100:.2f} %"
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _settings(pairs: list[str]) -> dict[str, object]:
    """`top_k=5 refine=temperature`: values are JSON, and text where they are not."""
    told: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set {pair} is not KEY=VALUE")
        try:
            told[key] = json.loads(text)
        except ValueError:
            told[key] = text
    return told


def _kind(output: Path | None) -> str:
    """Of the result's file, by its name; asked before anything is computed."""
    ending = output.suffix.lower() if output is not None else ".npz"
    if ending not in (".npz", ".parquet"):
        raise UserError(f"{output} ends neither with .npz nor with .parquet", "name it so")
    return ending.removeprefix(".")
