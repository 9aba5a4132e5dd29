"""`lepta answers`: what was answered, as far as it is kept."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from controller.commands import common
from controller.commands.layout import ago, ms, size
from controller.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from agent.contract.tensors import Tensor
    from controller.answer_replies import StoredAnswer

app = typer.Typer(help="Stored answers: by model, device, version, state and time.", no_args_is_help=True)
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SHOWN = 8


@app.command("ls")
def list_answers(
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    device: Annotated[str | None, typer.Option(help="That this device computed.")] = None,
    version: Annotated[int | None, typer.Option(help="Of this version.", min=0)] = None,
    state: Annotated[str | None, typer.Option(help="answered or failed.")] = None,
    last: Annotated[str | None, typer.Option(help="Of the last 90s, 15min, 6h or 7d.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page.", min=1)] = 50,
    after: Annotated[str | None, typer.Option(help="Where the page before ended, as it says.")] = None,
) -> None:
    """Stored answers, newest first."""
    since = None if last is None else time.time() - _seconds(last)
    with common.connect() as client:
        page = client.answers(
            model=model, device=device, version=version, state=state, since=since, limit=limit, after=after
        )
    screen = common.screen()
    if not page.answers:
        screen.line("no answers are stored; `lepta model policy MODEL` says what is kept")
    else:
        header = ("request", "model", "version", "device", "state", "time", "size", "when")
        screen.table(header, [_row(answer) for answer in page.answers], right=(5, 6))
    if page.next:
        screen.note(f"more: --after {page.next}")
    if page.dropped:
        screen.note(f"{page.dropped:,} answers were dropped on their way to the disk, which did not keep up")


@app.command()
def show(request: Annotated[str, typer.Argument(help="The request's id.")]) -> None:
    """A stored answer with its tensors."""
    with common.connect() as client:
        found = client.answer(request)
    screen = common.screen()
    screen.line(f"{found.id}: {found.model} version {found.version}, {found.state}, on {found.device or 'no device'}")
    screen.line(f"  trace {found.trace_id}, {ms(found.ms)}, {found.runtime}, artifact {found.artifact[:12]}")
    if found.error:
        screen.line(f"  {found.error}")
    for tensor in found.outputs:
        screen.line(f"  output {_shown(tensor)}")
    for tensor in found.inputs or ():
        screen.line(f"  input  {_shown(tensor)}")
    if found.inputs is None:
        screen.note("  its inputs were not kept")


def _row(answer: StoredAnswer) -> tuple[str, ...]:
    when = ago(max(0.0, time.time() - answer.received_at))
    named = (answer.id, answer.model, str(answer.version), answer.device or "-", answer.state)
    return (*named, ms(answer.ms), size(answer.size), when)


def _shown(tensor: Tensor) -> str:
    import numpy as np

    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = np.frombuffer(tensor.data, tensor.dtype)
    first = " ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in array[:_SHOWN].tolist())
    return f"{tensor.name}: {tensor.dtype} {list(tensor.shape)}: {first}{' ...' if array.size > _SHOWN else ''}"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if found is None:
        raise UserError(f"{text[:40]!r} is no length of time", "90s, 15min, 6h or 7d")
    return float(found.group(1)) * _UNITS[found.group(2)]
