"""`lepta up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the REST API; 0 takes a free one.", min=0, max=65535)] = 8000,
    broker: Annotated[
        str | None,
        typer.Option(help="auto, embedded, mosquitto, or mqtt://HOST[:PORT]; default $LEPTA_BROKER or auto."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder; default $LEPTA_DATA or ~/.local/share/lepta.")] = None,
) -> int:
    """Start the controller: REST API, MQTT broker and store. Ctrl-C stops it."""
    import os

    from controller.locate import data_folder
    from controller.settings import Settings, choose_broker
    from controller.up import run

    folder = data.expanduser() if data else data_folder()
    return run(Settings(data=folder, host=host, port=port, broker=choose_broker(broker, os.environ)))
