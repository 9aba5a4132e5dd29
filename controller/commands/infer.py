"""`lepta infer` and `lepta trace`: ask a model, and see the way that a question took."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.layout import ms
from controller.errors import NotFound, Preparing

if TYPE_CHECKING:
    from agent.contract.oip_models import Metadata
    from controller.client.oip import Answer
    from controller.client.rest import Client
    from controller.commands.screen import Screen
    from controller.replies import Request, Version


def infer(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    files: Annotated[list[Path], typer.Argument(help="Pictures (png, jpg), .npy or .json files.")],
    as_object: Annotated[bool, typer.Option("--json", help="Print each answer as a JSON object.")] = False,
    as_json: Annotated[
        bool, typer.Option("--as-json", help="Ask nothing; print the request, for curl or `lepta pub`.")
    ] = False,
    client_name: Annotated[
        str | None, typer.Option("--client", help="With --as-json: whom the answer over MQTT is for.")
    ] = None,
) -> None:
    """Ask MODEL about each FILE."""
    from controller.client.oip import json_request
    from controller.client.preprocess import read_inputs

    with common.connect() as client:
        metadata, version = client.metadata(model), client.version(model, "serving")
        if not metadata.inputs:
            # Nothing is built yet: what its inputs are is known when it is.
            _prepare(client, model)
            metadata = client.metadata(model)
        for file in files:
            inputs = read_inputs(file, metadata.inputs, version.preprocessing)
            if as_json:
                named = {"client": client_name} if client_name else {}
                sys.stdout.write(json_request(inputs, **named).decode() + "\n")
                continue
            try:
                answer = client.infer(model, inputs)
            except Preparing:
                _prepare(client, model)
                answer = client.infer(model, inputs)
            _show(file if len(files) > 1 else None, answer, metadata, version, as_object)


def trace(
    request: Annotated[str, typer.Argument(help="The request's id, as `lepta infer` prints it; or a trace's.")],
) -> None:
    """The way of a request through the flow, with the time of each step."""
    screen = common.screen()
    with common.connect() as client:
        is_trace = re.fullmatch("[0-9a-f]{32}", request)
        found = client.requests_of(request) if is_trace else [client.request(request)]
    if not found:
        raise NotFound(f"no request belongs to the trace {request}", "the log is written once a second")
    for each in reversed(found):
        _show_way(screen, each)


def _show_way(screen: Screen, found: Request) -> None:
    screen.line(
        f"request {found.id}: {found.model} version {found.version}, {found.state}"
        f"{f' after {found.attempts} attempts' if found.attempts > 1 else ''}"
    )
    screen.note(f"  trace {found.trace_id}")
    rows = [(step.step, ms(step.ms), step.detail) for step in found.steps]
    # What is stored afterwards is not waited for.
    answered = sum(step.ms for step in found.steps if step.step != "store")
    rows.append(("answered in", ms(answered), f"on {found.device}" if found.device else ""))
    screen.table(("step", "time", ""), rows, right=(1,))


def _prepare(client: Client, model: str) -> None:
    """Wait until a device has the model, and say what for."""
    with common.screen().progress() as progress:
        client.prepare(model, lambda found: progress.update(found.step or "prepare", None, found.follow))


def _show(file: Path | None, answer: Answer, metadata: Metadata, version: Version, as_object: bool) -> None:
    from controller.client.answers import describe, object_of

    if as_object:
        import msgspec

        sys.stdout.write(msgspec.json.encode(object_of(answer, version, file)).decode() + "\n")
        return
    screen = common.screen()
    for text in describe(answer, version.labels if version.version == answer.version else ()):
        screen.line(f"{file}: {text}" if file else text)
    screen.note(
        f"  {metadata.name} version {answer.version}, on {answer.device}, {answer.runtime}; request {answer.id}"
    )
