"""`lepta model`: models and their versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.commands import common
from controller.commands.layout import count, ms, share, size
from controller.errors import UserError

if TYPE_CHECKING:
    from controller.replies import Artifact, Model

app = typer.Typer(help="Models and their versions.", no_args_is_help=True)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="What `lepta optimize --out` made.")],
    name: Annotated[str | None, typer.Option(help="The model's name here; default: as in the report.")] = None,
) -> None:
    """Bring artifacts that were made elsewhere to the controller, as a new version."""
    report = read_report(folder)
    model = name or str(report.get("model") or "")
    files = files_of(report)
    screen = common.screen()
    with common.connect() as client, screen.progress() as progress:
        digests = {}
        for number, file in enumerate(files):
            progress.update("upload", number / len(files), file)
            digests[file] = client.put_file(folder / file).digest
        version = client.import_version(model, report, digests)
    profiles = ", ".join(artifact.profile for artifact in version.artifacts)
    screen.line(f"{version.model} version {version.version}: {profiles or 'no artifacts'}")
    signed = all(artifact.signed for artifact in version.artifacts)
    rollout = f"lepta rollout start {version.model} --version {version.version}"
    screen.note(f"next: {rollout if signed else 'lepta release pending --out FILE'}")


@app.command("ls")
def list_models() -> None:
    """Every model: how many versions, and which one serves."""
    screen = common.screen()
    with common.connect() as client:
        models = client.models()
    if not models:
        screen.line("no models; bring one with `lepta deploy` or `lepta model push`")
        return
    screen.table(("model", "versions", "serving"), [_row(model) for model in models])


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Option(help="A number, latest or serving.")] = "latest",
) -> None:
    """A version: its source, labels and artifacts."""
    screen = common.screen()
    with common.connect() as client:
        found = client.version(model, version)
    screen.line(f"{found.model} version {found.version}, from {found.source_name or 'a file'} ({found.source[:12]})")
    if found.labels:
        screen.line(f"  labels  {', '.join(found.labels[:20])}{' ...' if len(found.labels) > 20 else ''}")
    if found.preprocessing is not None:
        how = found.preprocessing
        screen.line(f"  image   {how.height} x {how.width} x {how.channels}, value * {how.scale:g} + {how.offset:g}")
    header = ("profile", "artifact", "bytes", "MACs", "float", "int8", "latency there")
    rows = [artifact_row(artifact) for artifact in found.artifacts]
    if rows:
        screen.table(header, rows, right=range(2, len(header)))
        waiting = [artifact.profile for artifact in found.artifacts if not artifact.signed]
        if waiting:
            screen.line(f"  waits for the release key's signature: {', '.join(waiting)}; lepta release pending")
    else:
        screen.line("  no artifacts yet")


@app.command()
def prepare(model: Annotated[str, typer.Argument(help="The model's name.")]) -> None:
    """Bring a model to a device, as a request for it would, and wait for that."""
    screen = common.screen()
    with common.connect() as client, screen.progress() as progress:
        client.prepare(model, lambda found: progress.update(found.step or "prepare", None, found.follow))
    screen.line(f"{model} answers")


@app.command("policy")
def set_policy(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    on_demand: Annotated[str | None, typer.Option(help="off, place or optimize: what a request may begin.")] = None,
    keep: Annotated[str | None, typer.Option(help="none, errors, sampled, answers; all keeps inputs too.")] = None,
    rate: Annotated[float | None, typer.Option(help="The share that sampled keeps.", min=0, max=1)] = None,
    days: Annotated[float | None, typer.Option(help="Answers older than this go.")] = None,
    megabytes: Annotated[float | None, typer.Option("--mb", help="Beyond this the oldest go.", min=0)] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was set before.")] = False,
) -> None:
    """What a request for MODEL may begin, and what is kept of its answers. Without options: show it."""
    import msgspec

    given = {"on_demand": on_demand, "keep": keep, "rate": rate, "days": days, "megabytes": megabytes}
    said = {name: value for name, value in given.items() if value is not None}
    with common.connect() as client:
        found = client.policy(model)
        if said or reset:
            before = {} if reset else msgspec.to_builtins(found.override)
            found = client.set_policy(model, {**before, **said})
    own = msgspec.to_builtins(found.override)
    rows = [
        (name.replace("_", " "), str(value), "" if own[name] is None else "of this model")
        for name, value in msgspec.to_builtins(found.policy).items()
    ]
    common.screen().table((), rows)


def read_report(folder: Path) -> dict[str, Any]:
    """The report of an optimizer's folder; raises UserError where it is not one."""
    import json

    path = folder / "report.json"
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no folder of the optimizer: {error}", "make one with `lepta optimize`") from error
    if not isinstance(report, dict) or not report.get("artifacts"):
        raise UserError(f"{path} names no artifacts", "nothing passed its gate there; see its `rejected`")
    return report


def files_of(report: dict[str, Any]) -> list[str]:
    """Names of every file that the report refers to, each once, inside its folder."""
    refs = [report.get("source"), *(ref for a in report["artifacts"] for ref in a.get("files", {}).values())]
    names = {str(ref["file"]) for ref in refs if isinstance(ref, dict) and "file" in ref}
    outside = sorted(name for name in names if Path(name).is_absolute() or ".." in Path(name).parts)
    if outside:
        raise UserError(f"the report names files outside of its folder: {', '.join(outside)}")
    return sorted(names)


def artifact_row(artifact: Artifact) -> tuple[str, ...]:
    return (
        artifact.profile,
        artifact.digest[:12],
        size(artifact.bytes),
        count(artifact.macs),
        share(artifact.accuracy_float),
        share(artifact.accuracy_int8),
        ms(artifact.latency_ms),
    )


def _row(model: Model) -> tuple[str, ...]:
    return (model.name, str(len(model.versions)), "-" if model.serving is None else f"version {model.serving}")
