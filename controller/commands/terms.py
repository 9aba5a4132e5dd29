"""The options that say what a version asks of its devices, for every command that takes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from controller.terms import Terms

_DAY_S = 86400
Expires = Annotated[float | None, typer.Option(help="Days until no device installs it any more.", min=0)]
Device = Annotated[list[str] | None, typer.Option(help="Only for this device; may be given several times.")]
Group = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only for devices with this label; several times.")
]
Runtime = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VERSION", help="Needs at least this version of the runtime.")
]
Watch = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="What sends it back after the switch, such as answers=500 or p95_ms=5."),
]
Shadow = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Live requests that it answers beside the version before: requests=200."),
]


def terms_of(
    expires: float | None,
    device: Sequence[str] | None,
    group: Sequence[str] | None,
    runtime: Sequence[str] | None,
    watch: Sequence[str] | None = None,
    shadow: Sequence[str] | None = None,
) -> Terms:
    """Raises UserError naming the option."""
    from controller import terms

    return terms.from_options(
        expires_at=None if expires is None else int(time.time() + expires * _DAY_S),
        devices=device or (),
        groups=group or (),
        runtimes=runtime or (),
        watch=watch or (),
        shadow=shadow or (),
    )
