"""`lepta key`: who may call the API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.layout import ago

if TYPE_CHECKING:
    from controller.replies import ApiKey

_DAY_S = 86400.0
app = typer.Typer(help="Keys of the API: who may read, infer, operate, release, administer.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the key is called in lists and errors.")],
    scope: Annotated[
        list[str], typer.Option(help="read, infer, operate, release or admin; may be given several times.")
    ],
    expires: Annotated[float | None, typer.Option(help="Days until it is void; default never.", min=0)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the key to this file (mode 0600) instead of the screen.")
    ] = None,
) -> None:
    """Make a key. It is shown once and not kept."""
    from agent.contract.signing import write_secret

    with common.connect() as client:
        made = client.add_key(name, scope, expires_s=None if expires is None else expires * _DAY_S)
    screen = common.screen()
    if out is None:
        screen.line(made.key)
        return
    write_secret(out, made.key + "\n")
    screen.line(f"{out} holds the key {made.id}, good for {', '.join(made.scopes)}")


@app.command("ls")
def list_keys() -> None:
    """Every key: what it is good for, until when, and when it was used last."""
    with common.connect() as client:
        keys = client.api_keys()
    now = time.time()
    rows = [(key.id, key.name, ", ".join(key.scopes), _expires(key, now), _used(key, now)) for key in keys]
    common.screen().table(("id", "name", "scopes", "expires", "last used"), rows)


@app.command()
def rm(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `lepta key ls` shows it.")]) -> None:
    """Make a key void at once."""
    with common.connect() as client:
        removed = client.remove_key(key_id)
    common.screen().line(f"the key {removed.name} ({removed.id}) is void")


def _expires(key: ApiKey, now: float) -> str:
    if key.expires_at is None:
        return "never"
    left = key.expires_at - now
    return "expired" if left <= 0 else f"in {left / _DAY_S:.1f} days"


def _used(key: ApiKey, now: float) -> str:
    return "never" if key.last_used is None else ago(max(0.0, now - key.last_used))
