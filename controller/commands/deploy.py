"""`lepta deploy`: from a trained model to answers, in one go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller import recipes
from controller.commands import common, terms
from controller.commands.made import show_bought
from controller.commands.model import artifact_row
from controller.commands.optimize import Compare, Data, Model, RecipeOption, Trust
from controller.commands.rollout import show_rollout

if TYPE_CHECKING:
    from controller.client.rest import Client
    from controller.commands.screen import Screen
    from controller.replies import Rollout, Run


def deploy(
    model: Model,
    data: Data,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the file's.")] = None,
    labels: Annotated[str | None, typer.Option(help="Names of the classes: a,b,c or a file with one per line.")] = None,
    preprocessing: Annotated[Path | None, typer.Option(help="How pictures become input, JSON.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help="Only these classes; default: those in the fleet.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Gate on the 95 % bound of the accuracy loss.")] = False,
    recipe: RecipeOption = None,
    compare: Compare = None,
    trust: Trust = False,
    expires: terms.Expires = None,
    device: terms.Device = None,
    group: terms.Group = None,
    runtime: terms.Runtime = None,
    watch: terms.Watch = None,
    shadow: terms.Shadow = None,
) -> None:
    """Optimize MODEL for the fleet, roll it out, wait, and say how to use it."""

    def upload(client: Client) -> Run:
        return client.deploy(
            model,
            data,
            name=name or common.model_name(model),
            labels=common.labels_of(labels),
            preprocessing=common.preprocessing_of(preprocessing),
            profiles=profile or (),
            strict=strict,
            recipe=taken,
            compare=compare,
            trust=trust,
            asked=asked,
        )

    asked, taken = terms.terms_of(expires, device, group, runtime, watch, shadow), recipes.from_option(recipe)
    with common.connect() as client:
        _follow(client, upload)


def _follow(client: Client, upload: Callable[[Client], Run]) -> None:
    from controller.client.follow import follow_deploy

    screen, run = common.screen(), None
    try:
        with screen.progress() as progress:
            progress.update("upload")
            run = upload(client)
            done, rollout = follow_deploy(client, run, progress)
    except KeyboardInterrupt:
        if run is not None:
            screen.line(f"the run goes on without you: lepta run show {run.id}, or lepta run cancel {run.id}")
        raise
    show_outcome(screen, client, done, rollout)


def show_outcome(screen: Screen, client: Client, run: Run, rollout: Rollout) -> None:
    """Artifacts, devices, and the lines that use the model."""
    screen.line()
    header = ("profile", "artifact", "bytes", "MACs", "float", "int8", "latency there")
    screen.table(header, [artifact_row(artifact) for artifact in run.artifacts], right=range(2, len(header)))
    show_bought(screen, run.artifacts)
    for entry in run.rejected:
        screen.line(f"  {entry.profile}: rejected: {'; '.join(entry.reasons)}")
    screen.line()
    show_rollout(screen, rollout)
    screen.heading("Use it")
    for text in use_lines(run.model, client):
        screen.line(f"  {text}")


def use_lines(model: str, client: Client) -> list[str]:
    """Commands that ask the model, over REST and over MQTT."""
    place, broker = client.place, client.broker()
    trust = f" --cacert {place.ca}" if place.ca else ""
    return [
        f"lepta infer {model} FILE",
        f"lepta infer {model} FILE --as-json | curl -s{trust} {place.url}/v2/models/{model}/infer -d @- \\",
        f'    -H "Content-Type: application/json" -H "Authorization: Bearer $(cat {place.token_file})"',
        "lepta sub lepta/v1/clients/me/answer --count 1 &",
        f"lepta infer {model} FILE --as-json --client me | lepta pub lepta/v1/models/{model}/infer -",
        f"any MQTT client: {broker.host}:{broker.port}, user {broker.username or '-'}, password: GET /api/v1/broker",
    ]
