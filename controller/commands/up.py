"""`lepta up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PORT = {"min": 1, "max": 65535}
_Mirrors = Annotated[
    list[str] | None,
    typer.Option(help="Where devices find files under their digests before they ask here; several times."),
]
_OnDemand = Annotated[
    str, typer.Option(help="What a request for a model that no device has may begin: off, place or optimize.")
]
_Keep = Annotated[
    str, typer.Option(help="Which answers are stored: none, errors, sampled, answers; all keeps inputs too.")
]
_Broker = Annotated[
    str | None,
    typer.Option(help="auto, embedded, mosquitto, or mqtt://HOST[:PORT]; default $LEPTA_BROKER or auto."),
]


def up(
    lan: Annotated[
        bool, typer.Option("--lan", help="Serve other machines: TLS from a CA of its own; needs mosquitto.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default 127.0.0.1, with --lan all addresses.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What other machines call this one, a name or an address; the first is told to devices."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the REST API; 0 takes a free one.", min=0, max=65535)] = 8000,
    agents_port: Annotated[int, typer.Option(help="Port where devices reach MQTT, with --lan.", **_PORT)] = 8883,
    clients_port: Annotated[int, typer.Option(help="Port where clients reach MQTT, with --lan.", **_PORT)] = 8884,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on --host without TLS: everybody on that network reads along.")
    ] = False,
    broker: _Broker = None,
    mirror: _Mirrors = None,
    on_demand: _OnDemand = "place",
    keep: _Keep = "answers",
    data: Annotated[Path | None, typer.Option(help="Data folder; default $LEPTA_DATA or ~/.local/share/lepta.")] = None,
) -> int:
    """Start the controller: REST API, MQTT broker and store. Ctrl-C stops it."""
    import os

    from controller.client.locate import data_folder
    from controller.settings import Settings, check_mirrors, choose_broker, policy_of
    from controller.up import run

    settings = Settings(
        data=data.expanduser() if data else data_folder(),
        host=host or ("::" if lan else "127.0.0.1"),
        port=port,
        broker=choose_broker(broker, os.environ),
        lan=lan,
        names=tuple(name or ()),
        insecure=insecure,
        agents_port=agents_port,
        clients_port=clients_port,
        mirrors=check_mirrors(mirror or ()),
        policy=policy_of(on_demand, keep),
    )
    return run(settings)
