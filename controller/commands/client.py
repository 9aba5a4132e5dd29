"""`lepta client`: users' programs at the broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.device_text import day
from controller.errors import UserError

if TYPE_CHECKING:
    from controller.replies import BrokerClient

app = typer.Typer(help="Programs that ask and listen by MQTT, each with credentials of its own.", no_args_is_help=True)
_CA = "ca.pem"


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the program is called; also its user name at the broker.")],
    predictions: Annotated[
        list[str] | None, typer.Option(help="A model whose predictions it may read, + for all; several times.")
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="A topic of its own, such as a binding's, that it may publish on; several."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write CA and options for mosquitto's tools into this folder, and show no password."),
    ] = None,
) -> None:
    """Make credentials for a program, and say how to use them. The password is shown once."""
    if out is not None:
        out = common.new_folder(out).resolve()
    with common.connect() as client:
        made = client.add_client(name, predictions or [], publish or [])
    screen = common.screen()
    if out is None:
        _show(made, client.place.ca)
        folder = ""
    else:
        _write(made, out)
        screen.line(f"{out} holds the CA, and options for mosquitto_sub, mosquitto_pub and mosquitto_rr (mode 0600).")
        folder = f"XDG_CONFIG_HOME={out} "
    screen.line("It may ask every model and read its own answers" + _granted(made) + ". Then:")
    for line in examples(made):
        screen.line(f"  {folder}{line}")
    screen.line(
        f'REQUEST.json: {{"client": "{made.name}", "inputs": [{{"name": "x", "shape": [1, 2], "data": [1, 2]}}]}}'
    )
    screen.line("One program at a time: a second one with the same name puts the first one out.")


@app.command("ls")
def list_clients() -> None:
    """Every program that has credentials, and what it may read."""
    with common.connect() as client:
        clients = client.clients()
    rows = [
        (c.name, ", ".join(c.predictions) or "-", ", ".join(c.publishes) or "-", day(c.created_at)) for c in clients
    ]
    common.screen().table(("client", "predictions", "publishes on", "made"), rows)


@app.command()
def rm(name: Annotated[str, typer.Argument(help="As `lepta client ls` shows it.")]) -> None:
    """Make a program's password void and close its connection."""
    with common.connect() as client:
        removed = client.remove_client(name)
    common.screen().line(f"{removed.name} is removed: its password is void, and its connection is closed")


def options(made: BrokerClient, ca: str) -> list[str]:
    """What mosquitto's tools read from their file of options, one a line; the command line would show the password to
    every user of the machine."""
    return [
        f"-h {made.host}",
        f"-p {made.port}",
        f"--cafile {ca}",
        f"-u {made.name}",
        f"-P {made.password}",
        "-V mqttv5",
    ]


def examples(made: BrokerClient) -> list[str]:
    """Lines to run, once the options are where they belong."""
    from agent.contract import topics

    listening = [f"mosquitto_sub -v -t '{topics.predictions(model, '+')}'" for model in made.predictions]
    # Its -f and -s send nothing (mosquitto 2.0.11): the request goes through the shell.
    where = f"-t {topics.ROOT}/models/MODEL/infer -e {topics.client_answer(made.name)}"
    asking = f'mosquitto_rr {where} -m "$(cat REQUEST.json)"'
    telling = [f"mosquitto_pub -t '{topic}' -f INPUT" for topic in made.publishes]
    return [*listening, asking, *telling]


def _show(made: BrokerClient, ca: Path | None) -> None:
    screen = common.screen()
    known = str(ca) if ca is not None else _CA
    screen.table(
        (),
        [
            ("host", made.host),
            ("port", f"{made.port} (TLS)"),
            ("CA", f"{known} (copy it to where the program runs)"),
            ("user", made.name),
            ("password", made.password),
        ],
    )
    screen.line("mosquitto's tools read their options from ~/.config/mosquitto_sub, mosquitto_pub and mosquitto_rr:")
    for option in options(made, known):
        screen.line(f"  {option}")
    screen.line("-P on the command line works too, and shows the password to every user of that machine.")


def _write(made: BrokerClient, folder: Path) -> None:
    from agent.contract.signing import write_secret

    try:
        (folder / _CA).write_text(made.ca)
        for tool in ("mosquitto_sub", "mosquitto_pub", "mosquitto_rr"):
            write_secret(folder / tool, "\n".join(options(made, str(folder / _CA))) + "\n")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}", f"lepta client rm {made.name}, and add it again"
        ) from error


def _granted(made: BrokerClient) -> str:
    read = "every model" if "+" in made.predictions else ", ".join(made.predictions)
    reads = f", and the predictions of {read}" if read else ""
    return reads + (f"; it may publish on {', '.join(made.publishes)}" if made.publishes else "")
