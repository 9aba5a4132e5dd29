"""`lepta binding`: topics of users that devices read, and the models that answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.commands import common
from controller.commands.binding_text import HEADER, rows
from controller.errors import UserError

if TYPE_CHECKING:
    from controller.binding_replies import Binding

app = typer.Typer(help="Streams: topics that devices read, and the models that answer.", no_args_is_help=True)


@app.command()
def add(
    model: Annotated[str, typer.Argument(help="The model that is to answer.")],
    topic: Annotated[
        str,
        typer.Option(
            help="One topic outside of lepta/, or lepta/v1/predictions/MODEL/{device} for a chain; {device} is the "
            "name of the device that reads it."
        ),
    ],
    format_: Annotated[str, typer.Option("--format", help="tensor, json, image or pcm.")],
    device: Annotated[list[str] | None, typer.Option(help="A device that reads it; several times.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every device that is to run the model reads it.")] = False,
    name: Annotated[str, typer.Option(help="What the binding is called; default: as the model.")] = "",
    input_: Annotated[str, typer.Option("--input", help="Input of the model; default: its only one.")] = "",
    rate: Annotated[float, typer.Option(help="Predictions per second, at most; 0: no limit.", min=0)] = 10.0,
    keep: Annotated[int, typer.Option(help="Inputs that wait; the oldest is dropped.", min=1)] = 4,
    top: Annotated[int, typer.Option(help="Classes that a prediction names.", min=1, max=100)] = 3,
    preprocessing: Annotated[
        Path | None, typer.Option(help="image: JSON file that says how; default: as the model was deployed with.")
    ] = None,
    sample_rate: Annotated[int | None, typer.Option(help="pcm: samples per second.", min=1)] = None,
    window: Annotated[float, typer.Option(help="pcm: seconds of one prediction.", min=0.001)] = 1.0,
    hop: Annotated[float, typer.Option(help="pcm: seconds from one window to the next.", min=0.001)] = 0.5,
    sample: Annotated[str, typer.Option(help="pcm: int16 or float32, little-endian.")] = "int16",
    features: Annotated[str, typer.Option(help="pcm: samples, log-mel or mfcc.")] = "samples",
    frame_ms: Annotated[float, typer.Option(help="log-mel, mfcc: length of a frame.", min=0.1)] = 40.0,
    step_ms: Annotated[float, typer.Option(help="log-mel, mfcc: from one frame to the next.", min=0.1)] = 20.0,
    bands: Annotated[int, typer.Option(help="log-mel, mfcc: mel bands.", min=1, max=256)] = 40,
    coefficients: Annotated[int, typer.Option(help="mfcc: the first so many.", min=1, max=256)] = 10,
) -> None:
    """Have devices read a topic, run a model on what comes, and publish what it finds.

    The predictions come on lepta/v1/predictions/MODEL/DEVICE.
    """
    if bool(device) == all_:
        raise UserError("say which devices read it", "--device NAME, several times, or --all")
    body: dict[str, Any] = {"name": name or model, "model": model, "topic": topic, "format": format_, "input": input_}
    body |= {"rate": rate, "keep": keep, "top_k": top, "devices": device or []}
    body["preprocessing"] = common.as_mapping(common.preprocessing_of(preprocessing))
    if format_ == "pcm":
        said = {"sample": sample, "features": features, "bands": bands, "coefficients": coefficients}
        sizes = _sizes(sample_rate, window=window, hop=hop, frame=frame_ms / 1000, step=step_ms / 1000)
        body["audio"] = {**said, **sizes}
    with common.connect() as client:
        _told(client.add_binding(body))


@app.command("ls")
def list_bindings() -> None:
    """Every binding on every device that it concerns, with what came and what became of it."""
    with common.connect() as client:
        bindings = client.bindings()
    screen = common.screen()
    if not bindings:
        screen.line("no bindings; add one with `lepta binding add MODEL --topic T --format F --all`")
        return
    screen.table(HEADER, [row for binding in bindings for row in rows(binding)])
    for binding in bindings:
        if binding.refused:
            screen.note(f"{binding.name}: {binding.refused} of {len(binding.states)} devices cannot read it")


@app.command()
def rm(name: Annotated[str, typer.Argument(help="As `lepta binding ls` shows it.")]) -> None:
    """Stop reading for a binding."""
    with common.connect() as client:
        removed = client.remove_binding(name)
    common.screen().line(
        f"{removed.name} is removed: nothing is read from {removed.topic} for {removed.model} any more"
    )


def _sizes(rate: int | None, **seconds: float) -> dict[str, int]:
    """In samples, with the rate."""
    if rate is None:
        raise UserError("pcm needs to know how many samples make a second", "--sample-rate 16000")
    return {"rate": rate, **{name: max(1, round(value * rate)) for name, value in seconds.items()}}


def _told(made: Binding) -> None:
    screen = common.screen()
    names = ", ".join(state.device for state in made.states)
    if names:
        screen.line(f"{made.name}: {names} read {made.topic} as {made.format} for {made.model}. Then:")
    else:
        screen.line(f"{made.name}: no device that it names is to run {made.model} yet; it begins when one is. Then:")
    screen.line(f"  lepta sub 'lepta/v1/predictions/{made.model}/+'")
    screen.line("  lepta binding ls")
