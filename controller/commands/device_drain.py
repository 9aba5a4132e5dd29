"""`lepta device cordon | drain | uncordon`: take a device out of service, and put it back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.errors import Timeout

if TYPE_CHECKING:
    from controller.client.rest import Client
    from controller.commands.screen import Screen
    from controller.drain_replies import Duty

Name = Annotated[str, typer.Argument(help="The device's name.")]
Force = Annotated[bool, typer.Option("--force", help="Even if no other device serves its models.")]
_POLL_S = 0.2


def cordon(name: Name, force: Force = False) -> None:
    """Give a device nothing new: no request, no shard. What it holds, it computes."""
    with common.connect() as client:
        duty = client.cordon_device(name, force=force)
    screen = common.screen()
    screen.line(f"{name} gets nothing new; {left(duty)}")
    _tell(screen, duty)


def drain(
    name: Name,
    force: Force = False,
    wait: Annotated[bool, typer.Option(help="Wait until it can be switched off.")] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.", min=0)] = None,
) -> None:
    """Move a device's shards and requests away, and say when it can be switched off."""
    screen = common.screen()
    with common.connect() as client:
        duty = client.cordon_device(name, move=True, force=force)
        screen.line(f"{name} gets nothing new; {_shards(duty.moved)} moved to other devices")
        if wait:
            duty = _follow(client, screen, duty, timeout)
    if duty.state == "draining":
        screen.line(f"it has {left(duty)}; when it can be switched off: lepta device drain {name}")
    else:
        screen.line(f"{name} can be switched off; it stays out until: lepta device uncordon {name}")
    _tell(screen, duty)


def uncordon(name: Name) -> None:
    """Give a device work again that was cordoned or drained."""
    with common.connect() as client:
        duty = client.uncordon_device(name)
    common.screen().line(f"{name} gets work again" + ("" if duty.online else ", when it is back: it is offline"))


def left(duty: Duty) -> str:
    """What it holds, for people."""
    if duty.state != "draining":
        return "it can be switched off" if duty.state == "drained" else "it is in service"
    requests = "1 request" if duty.requests == 1 else f"{duty.requests} requests"
    return f"{requests} and {_shards(duty.shards)} still to answer"


def _follow(client: Client, screen: Screen, duty: Duty, timeout: float | None) -> Duty:
    """Until it holds nothing. Raises Timeout."""
    began = time.monotonic()
    with screen.progress() as progress:
        while duty.state == "draining":
            if timeout is not None and time.monotonic() - began >= timeout:
                raise Timeout(f"{duty.device} has {left(duty)}", f"it goes on: lepta device drain {duty.device}")
            progress.update("drain", None, left(duty))
            time.sleep(_POLL_S)
            duty = client.duty(duty.device)
    return duty


def _tell(screen: Screen, duty: Duty) -> None:
    if duty.alone:
        screen.line(f"Requests for {', '.join(duty.alone)} fail meanwhile: no other device serves it.")
    if duty.bindings:
        screen.line(f"Its bindings end when it is switched off: {', '.join(duty.bindings)}.")


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count} shards"
