"""`lepta optimize`: a run of the optimizer without a controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.commands import common
from controller.commands.layout import count, ms, share, size
from controller.commands.screen import Progress, Screen
from controller.errors import UserError


def optimize(
    model: Annotated[Path, typer.Argument(help="A Keras 3 model, .keras.")],
    data: Annotated[Path, typer.Option(help="Its data, .npz: train/, calibration/, validation/, test/.")],
    profile: Annotated[list[str], typer.Option(help="Device class: a builtin name or a .toml file; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the artifacts and the report.")],
    name: Annotated[str | None, typer.Option(help="The model's name; default: the file's.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Gate on the 95 % bound of the accuracy loss.")] = False,
    labels: Annotated[str | None, typer.Option(help="Names of the classes: a,b,c or a file.")] = None,
    preprocessing: Annotated[Path | None, typer.Option(help="How pictures become input, JSON.")] = None,
) -> int:
    """Turn MODEL into a gated int8 .tflite per profile, without a controller; `lepta model push` brings it to one."""
    needs_optimizer()
    from controller.optimizer_client import optimize_folder

    screen = common.screen()
    with screen.progress() as progress:
        report = optimize_folder(
            model,
            data,
            profile,
            out,
            strict,
            lambda event: show_event(progress, event),
            name=name or common.model_name(model),
            labels=common.labels_of(labels),
            preprocessing=common.as_mapping(common.preprocessing_of(preprocessing)),
        )
    return show_report(screen, report, out)


def needs_optimizer() -> None:
    """Raise UserError where the optimizer's libraries are missing, before anything was started."""
    import importlib.util

    from controller.endings import EXTRAS, install_line

    missing = [name for name in EXTRAS["optimizer"].split() if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this command needs the extra 'optimizer', which is not installed ({', '.join(missing)} missing)",
            install_line("optimizer"),
        )


def show_event(progress: Progress, event: Mapping[str, Any]) -> None:
    """Show a progress event of the optimizer."""
    profile = event.get("profile")
    step = str(event.get("step") or "optimize")
    progress.update(f"{step} for {profile}" if profile else step, event.get("fraction"), str(event.get("detail") or ""))


def show_report(screen: Screen, report: Mapping[str, Any], out: Path) -> int:
    """Show what the optimizer made; returns 1 where no artifact passed its gate."""
    artifacts, rejected = report.get("artifacts") or [], report.get("rejected") or []
    header = ("profile", "bytes", "MACs", "float", "int8", "agreement", "SQNR", "latency here")
    if artifacts:
        screen.table(header, [_row(artifact) for artifact in artifacts], right=range(1, len(header)))
    for entry in rejected:
        screen.line(f"  {entry['profile']}: rejected: {'; '.join(entry['reasons'])}")
    if not artifacts:
        raise UserError("no artifact passed its gate", f"the reasons stand above and in {out / 'report.json'}")
    screen.line()
    screen.line(f"  {out}: report.json and {len(artifacts)} artifact{'s' if len(artifacts) > 1 else ''}")
    screen.note(f"  next: lepta model push {out}")
    return 0


def _row(artifact: Mapping[str, Any]) -> tuple[str, ...]:
    noise = artifact.get("sqnr_db")
    return (
        str(artifact["profile"]),
        size(artifact.get("bytes")),
        count(artifact.get("macs")),
        share(artifact.get("accuracy_float")),
        share(artifact.get("accuracy_int8")),
        share(artifact.get("agreement")),
        "-" if noise is None else f"{noise:.1f} dB",
        ms(artifact.get("latency_ms")),
    )
