"""`lepta sub` and `lepta pub`: MQTT by hand, with the broker's login from the controller."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from controller.commands import common
from controller.errors import UserError


def sub(
    topic: Annotated[str, typer.Argument(help="A topic or filter, such as 'lepta/v1/agents/+/load'.")],
    count: Annotated[int, typer.Option(help="End after so many messages; 0: never.", min=0)] = 0,
) -> None:
    """Print the messages of TOPIC, readable, until Ctrl-C."""
    from controller.client.mqtt import readable, subscribe

    screen = common.screen()
    with common.connect() as client:
        access = client.broker()
    for number, (name, payload) in enumerate(subscribe(access, topic), 1):
        screen.line(f"{name if name.isprintable() else ascii(name)}  {readable(payload)}")
        if number == count:
            return


def pub(
    topic: Annotated[str, typer.Argument(help="The topic.")],
    file: Annotated[Path, typer.Argument(help="What to publish; - reads it from the standard input.")],
) -> None:
    """Publish a file to TOPIC."""
    from controller.client.mqtt import publish

    try:
        payload = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    with common.connect() as client:
        access = client.broker()
    publish(access, topic, payload)
