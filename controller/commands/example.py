"""`lepta example`: real data and a model to start with. Needs no controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.commands import common
from controller.commands.layout import share
from controller.commands.optimize import needs_optimizer, show_event

app = typer.Typer(help="Examples to start with.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `digits` a command of the group while it is the only one."""


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    epochs: Annotated[int, typer.Option(help="How long to train.", min=1, max=100)] = 6,
    seed: Annotated[int, typer.Option(help="Where the training starts.", min=0)] = 1,
) -> None:
    """Train a small CNN on scikit-learn's handwritten digits: model, data, a batch, a picture of a seven."""
    needs_optimizer()
    from controller.errors import Internal
    from controller.optimizer_client import Optimizer

    folder = common.new_folder(out).resolve()
    screen = common.screen()
    report = None
    with screen.progress() as progress, Optimizer() as optimizer:
        progress.update("start the optimizer")
        for event in optimizer.example("digits", folder, {"epochs": epochs, "seed": seed}):
            if event["event"] == "progress":
                show_event(progress, event)
            else:
                report = event["report"]
    if report is None:
        raise Internal("the optimizer ended without a report")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in report["labels"]), encoding="utf-8")
    common.write_json(folder / "preprocessing.json", report["preprocessing"])
    names = {role: folder / file["file"] for role, file in report["files"].items()}
    screen.line(f"{out}: {', '.join(path.name for path in names.values())}; test accuracy {share(report['accuracy'])}")
    screen.note("next:")
    described = f"--labels {folder / 'labels.txt'} --preprocessing {folder / 'preprocessing.json'}"
    screen.note(f"  lepta deploy {names['model']} --data {names['data']} --name digits {described}")
    screen.note(f"  lepta infer digits {names['seven']}")
