"""`lepta demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.commands.common import screen


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write what was measured to this file, as JSON.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder, kept afterwards; default: a temporary one.")] = None,
) -> int:
    """The main job, end to end, on this machine: train, shrink, deploy, swap under load, a batch job with a kill."""
    from controller.commands.optimize import needs_optimizer
    from controller.demo.show import run

    needs_optimizer()
    return run(screen(), keep=keep, report=report, data=data)
